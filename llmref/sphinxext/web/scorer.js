// Which hit comes first. Sphinx's own scores, and two rules of ours. A page comes first if its title
// holds each word that was asked for, as 'RoPE' or 'MHA' does, which stand in headings everywhere.
// A page that only lists what others say (the API, the ledger, agreement) comes after those.
var Scorer = {
  score: ([docname, title, anchor, descr, score]) => {
    const words = (text) => text.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean);
    const asked = words(new URLSearchParams(location.search).get("q") ?? "");
    const held = new Set(words(title));
    if (descr) return score; // no page, but a result or a function
    if (/^(api\/|agreement$|ledger$)/.test(docname)) return score - 20;
    return !anchor && asked.length && asked.every((word) => held.has(word)) ? score + 50 : score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
