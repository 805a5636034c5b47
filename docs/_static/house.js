// The drawing of the modules: a touched dot shows its imports and tells their names.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("figure.house").forEach((figure) => {
    const told = figure.querySelector(".told");
    const lines = [...figure.querySelectorAll("line")];
    const choose = (dot) => {
      figure.querySelectorAll("circle").forEach((other) => other.classList.toggle("chosen", other === dot));
      lines.forEach((line) => {
        line.classList.toggle("down", line.dataset.from === dot.dataset.name);
        line.classList.toggle("up", line.dataset.to === dot.dataset.name);
      });
      told.replaceChildren(...dot.dataset.told.split("|").flatMap((line) => [line, document.createElement("br")]));
    };
    figure.querySelectorAll("circle").forEach((dot) => {
      dot.addEventListener("click", () => choose(dot));
      dot.addEventListener("mouseenter", () => choose(dot));
    });
    // On a telephone dots are small: the one nearest to the touch is meant.
    figure.querySelector("svg").addEventListener("click", (event) => {
      const distance = (dot) => {
        const box = dot.getBoundingClientRect();
        return Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
      };
      const dots = [...figure.querySelectorAll("circle")];
      choose(dots.reduce((best, dot) => (distance(dot) < distance(best) ? dot : best)));
    });
  });
});
