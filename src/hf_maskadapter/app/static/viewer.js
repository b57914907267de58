const part = (name) => element.querySelector(name);
const viewer = part(".ma-viewer"), empty = part(".ma-empty"), stage = part(".ma-stage");
const picture = part(".ma-picture"), light = part(".ma-light"), tip = part(".ma-tip");
const paint = part(".ma-paint input"), legend = part(".ma-legend");
let shown = null, places = null, chosen = 0, lit = -1;

function percent(share) {
  return share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

function facts(segment) {
  const score = segment.score === null ? "" : `score ${segment.score.toFixed(2)}, `;
  return `${score}${percent(segment.share)} of the picture`;
}

function expand(runs, length) {
  const values = new Uint16Array(length);
  for (let index = 0, start = 0; index < runs.length; index += 2) {
    values.fill(runs[index], start, start + runs[index + 1]);
    start += runs[index + 1];
  }
  return values;
}

function build() {
  const value = props.value;
  shown = value && value.segments ? value : null;
  viewer.hidden = !shown;
  empty.hidden = Boolean(shown);
  legend.replaceChildren();
  tip.hidden = true;
  chosen = 0;
  lit = -1;
  if (!shown) return;
  places = expand(shown.runs, shown.width * shown.height);
  picture.alt = shown.alt;
  light.width = shown.width;
  light.height = shown.height;
  showPicture();
  shown.segments.forEach((segment, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    const swatch = document.createElement("span");
    swatch.className = "ma-swatch";
    swatch.style.background = segment.color;
    const name = document.createElement("span");
    name.className = "ma-name";
    name.textContent = segment.label;
    const rest = document.createElement("span");
    rest.className = "ma-facts";
    rest.textContent = facts(segment);
    button.append(swatch, name, rest);
    button.addEventListener("mouseenter", () => highlight(index + 1));
    button.addEventListener("focus", () => highlight(index + 1));
    button.addEventListener("mouseleave", () => highlight(chosen));
    button.addEventListener("blur", () => highlight(chosen));
    button.addEventListener("click", () => choose(index + 1));
    const item = document.createElement("li");
    item.append(button);
    legend.append(item);
  });
  if (!shown.segments.length) {
    const item = document.createElement("li");
    item.textContent = "Nothing found.";
    legend.append(item);
  }
  highlight(0);
}

function showPicture() {
  if (shown) picture.src = paint.checked ? shown.painted : shown.plain;
}

function highlight(number) {
  if (!shown || number === lit) return;
  lit = number;
  const context = light.getContext("2d");
  if (!number) {
    context.clearRect(0, 0, light.width, light.height);
    return;
  }
  const image = context.createImageData(light.width, light.height);
  const width = light.width, bytes = image.data;
  for (let index = 0; index < places.length; index++) {
    if (places[index] !== number) {
      bytes[4 * index + 3] = 140;
      continue;
    }
    const column = index % width;
    const edge =
      column < 2 || column >= width - 2 || places[index - 2] !== number || places[index + 2] !== number ||
      places[index - 2 * width] !== number || places[index + 2 * width] !== number;
    if (edge) bytes.fill(255, 4 * index, 4 * index + 4);
  }
  context.putImageData(image, 0, 0);
}

function placeAt(event) {
  const box = picture.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * shown.width);
  const row = Math.floor(((event.clientY - box.top) / box.height) * shown.height);
  const inside = column >= 0 && row >= 0 && column < shown.width && row < shown.height;
  return inside ? places[row * shown.width + column] : 0;
}

function point(event) {
  if (!shown) return;
  const number = placeAt(event);
  highlight(number || chosen);
  tip.hidden = !number;
  if (!number) return;
  const segment = shown.segments[number - 1];
  tip.textContent = `${segment.label}: ${facts(segment)}`;
  const box = stage.getBoundingClientRect();
  const left = event.clientX - box.left, right = left > box.width / 2;
  tip.style.left = right ? "" : `${left + 12}px`;
  tip.style.right = right ? `${box.width - left + 12}px` : "";
  tip.style.top = `${Math.max(event.clientY - box.top - 36, 0)}px`;
}

function choose(number) {
  chosen = number;
  [...legend.querySelectorAll("button")].forEach((button, index) => {
    button.setAttribute("aria-pressed", String(index + 1 === number));
  });
  highlight(number);
  trigger("select", { index: number - 1, value: shown.segments[number - 1].label });
}

stage.addEventListener("pointermove", point);
stage.addEventListener("pointerleave", () => {
  tip.hidden = true;
  highlight(chosen);
});
stage.addEventListener("click", (event) => {
  const number = shown ? placeAt(event) : 0;
  if (number) choose(number);
});
paint.addEventListener("change", showPicture);
watch("value", build);
build();
