// Reads one JSON request a line, {tex, display, output}; answers one JSON line, {html} or {error}.
"use strict";
const katex = require("katex");
const readline = require("node:readline");

// Everything that LaTeX would not accept is an error, except letters such as 'ö' inside \text.
const strict = (code) => (code === "unicodeTextInMathMode" ? "ignore" : "error");

function answer({ tex, display, output }) {
  try {
    const html = katex.renderToString(tex, {
      displayMode: display, output, throwOnError: true, strict,
    });
    return { html };
  } catch (error) {
    return { error: error.message };
  }
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  process.stdout.write(JSON.stringify(answer(JSON.parse(line))) + "\n");
});
