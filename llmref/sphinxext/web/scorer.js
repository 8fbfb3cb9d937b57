// Which hit comes first. Sphinx's own scores, and one rule of ours: a page comes first if its title
// holds each word that was asked for, as 'RoPE' or 'MHA' does, which stand in headings everywhere.
var Scorer = {
  score: ([, title, anchor, descr, score]) => {
    const words = (text) => text.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter(Boolean);
    const asked = words(new URLSearchParams(location.search).get("q") ?? "");
    const held = new Set(words(title));
    const isPage = !anchor && !descr;
    return isPage && asked.length && asked.every((word) => held.has(word)) ? score + 50 : score;
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
