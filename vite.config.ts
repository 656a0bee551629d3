import tailwindcss from "@tailwindcss/vite";
import { defineConfig } from "vitest/config";

/*
 * One entry per kind of page. `base: "./"` keeps every address in the output relative, so that the
 * site works behind a prefix; django-vite reads the manifest and hashes make the files immutable.
 */
export default defineConfig({
  base: "./",
  publicDir: false,
  plugins: [tailwindcss()],
  build: {
    outDir: "static/dist",
    emptyOutDir: true,
    manifest: "manifest.json",
    modulePreload: { polyfill: false },
    target: "es2022",
    chunkSizeWarningLimit: 600, // echarts, on the pages that draw
    rolldownOptions: {
      checks: { eval: false }, // htmx has one behind `allowEval`, which base.html switches off
      input: {
        site: "static/src/site/main.ts",
        playground: "static/src/playground/main.ts",
        gallery: "static/src/gallery/main.ts",
        usage: "static/src/usage/main.ts",
        reference: "static/src/reference/main.ts",
      },
    },
  },
  test: {
    include: ["static/src/**/*.test.ts"],
    environment: "node",
    testTimeout: 30_000, // a DOM in Node is slow on a busy machine
  },
});
