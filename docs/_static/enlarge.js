// A click on a picture of an article shows it as large as the window allows; another click, or Escape, closes it.
document.addEventListener("click", (event) => {
  const picture = event.target;
  if (!(picture instanceof HTMLImageElement) || picture.closest("a") || !picture.closest("article")) return;
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.append(picture.cloneNode());
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
});
