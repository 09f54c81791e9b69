const systemFonts = "system-ui, sans-serif";
Redoc.init(
  "openapi.json",
  {
    theme: {
      typography: { fontFamily: systemFonts, headings: { fontFamily: systemFonts }, code: { fontFamily: "monospace" } },
    },
  },
  document.getElementById("redoc"),
);
