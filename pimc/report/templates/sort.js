// Sorts a table by the column whose button is pressed; a second time the other way round.
document.querySelectorAll("table.sortable thead button").forEach((button) => {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = Array.from(head.parentNode.children).indexOf(head);
    const down = head.getAttribute("aria-sort") !== "descending";
    const key = (row) => Number(row.children[column].dataset.value);
    const rows = Array.from(body.rows).sort((a, b) => (down ? key(b) - key(a) : key(a) - key(b)));
    head.parentNode.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  });
});
// A link to a folded section opens it.
const unfold = () => {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
};
addEventListener("hashchange", unfold);
unfold();
