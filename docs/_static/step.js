// The pictures of a step: touching a node tells what it does and shows the arcs of what it reads; "play" walks through.
document.addEventListener("DOMContentLoaded", () => {
  const figures = [...document.querySelectorAll("figure.step")];
  if (!figures.length) return;
  const bar = document.createElement("div");
  bar.className = "step-choice";
  figures[0].before(bar);
  const show = (chosen) => {
    figures.forEach((figure) => { figure.hidden = figure !== chosen; });
    [...bar.children].forEach((button, i) => button.setAttribute("aria-pressed", figures[i] === chosen));
  };
  figures.forEach((figure) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = figure.dataset.title;
    button.addEventListener("click", () => show(figure));
    bar.append(button);

    const nodes = [...figure.querySelectorAll(".node")];
    const told = figure.querySelector(".told");
    let timer = null;
    const choose = (node) => {
      nodes.forEach((other) => other.classList.toggle("chosen", other === node));
      figure.querySelectorAll(".arc").forEach((arc) => {
        arc.classList.toggle("in", arc.dataset.to === node.dataset.n);
        arc.classList.toggle("out", arc.dataset.from === node.dataset.n);
      });
      told.replaceChildren(...node.dataset.told.split("|").flatMap((line) => [line, document.createElement("br")]));
    };
    const stop = () => { clearInterval(timer); timer = null; play.textContent = "▶ play the step"; };
    const play = document.createElement("button");
    play.type = "button";
    play.addEventListener("click", () => {
      if (timer) { stop(); return; }
      let next = 0;
      const go = () => { if (next < nodes.length) choose(nodes[next++]); else stop(); };
      play.textContent = "■ stop";
      go();
      timer = setInterval(go, 900);
    });
    figure.querySelector("figcaption").after(play);
    nodes.forEach((node) => {
      ["click", "focus", "mouseenter"].forEach((kind) =>
        node.addEventListener(kind, () => { if (!timer || kind === "click") { stop(); choose(node); } }));
    });
    stop();
    choose(nodes[0]);
  });
  show(figures[0]);
});
