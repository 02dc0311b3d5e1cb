"use strict";
if (document.getElementById("tools")) {
  const rows = JSON.parse(document.getElementById("data").textContent);
  whence.toggle("columns", "all-columns");
  whence.fit();
  whence.share(() => rows);
}
