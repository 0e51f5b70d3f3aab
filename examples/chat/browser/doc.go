// Package browser tests the chat in a real browser: two windows, one at each web server, while nodes die. It is a module of
// its own, as what drives a browser is no dependency of Waggle.
//
// The tests start the program as a person does. They need Chromium and a Redis or Valkey server in PATH, and npm for
// axe-core, which looks for what keeps people from using the page; scripts/setup installs them.
package browser
