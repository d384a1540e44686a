// Pictures that are not drawn here: opened, photographed, dropped or pasted.

const LARGEST_SIDE = 1600; // pixels a side of a file that is too large to be sent

/** Call back with every picture (File) that a person opens, drops anywhere on the page, or pastes. */
export function onPicture(input, dropZone, callback) {
  const take = (files) => {
    const picture = [...(files ?? [])].find((file) => file.type.startsWith("image/") || file.type === "");
    if (picture) callback(picture);
    return Boolean(picture);
  };
  input.addEventListener("change", () => {
    take(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    if (take(event.clipboardData?.files)) event.preventDefault();
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    dropZone.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) dropZone.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dropZone.classList.remove("dropping");
    take(event.dataTransfer?.files);
  });
}

/** The picture itself where the server accepts so many bytes, else a smaller copy (JPEG). */
export async function withinLimit(picture, maxBytes) {
  if (picture.size <= maxBytes) return picture;
  let image;
  try {
    image = await createImageBitmap(picture);
  } catch {
    return picture; // the server says what it thinks of it
  }
  const scale = Math.min(1, LARGEST_SIDE / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  const paper = canvas.getContext("2d");
  // JPEG has no transparency: what is see-through would be black.
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, canvas.width, canvas.height);
  paper.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
}
