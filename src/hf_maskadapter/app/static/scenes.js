element.addEventListener("click", (event) => {
  const button = event.target.closest(".ma-scene");
  if (button) trigger("select", { index: Number(button.dataset.index), value: button.title });
});
