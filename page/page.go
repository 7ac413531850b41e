// Package page has the status page of the daemon: one document without any other
// file, made of the files beside this one. It has no data. What it shows it asks
// the daemon for, as any program can: GET /events for what changes, GET /pushes for
// the list.
//
//	page.html    the document; it opens as it is too, beside the others, for those who work on it
//	page.css     its looks, light and dark
//	words.js     numbers, times and names in words
//	draw.js      the drawings, from numbers to SVG
//	page.js      the stream of events, the verdict and the figures
//	list.js      the list of pushes, and the question before one is changed
//	failures.js  what failed lately and why
//	one.js       the page of one push, the fragment of the address, the token
//
// The scripts are plain ones that share one scope, in this order. No text from the
// daemon becomes HTML, and the document's policy would have a browser refuse it.
package page

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

//go:embed page.html page.css words.js draw.js page.js list.js failures.js one.js
var files embed.FS

// document is the page, and policy the Content-Security-Policy that it is served with.
var document, policy = assemble()

// reference finds where page.html names another file, and which: a script or a
// stylesheet.
var reference = regexp.MustCompile(`<script src="([a-z]+\.js)"></script>|<link rel="stylesheet" href="([a-z]+\.css)">`)

// assemble puts each file in the place of its name. A browser runs and applies those
// alone, by their digests, and asks this daemon alone for anything.
func assemble() (document []byte, policy string) {
	var scripts, styles strings.Builder
	put := func(name string, hashes *strings.Builder) string {
		text := read(name)
		sum := sha256.Sum256([]byte(text))
		fmt.Fprintf(hashes, " 'sha256-%s'", base64.StdEncoding.EncodeToString(sum[:]))
		return text
	}
	text := reference.ReplaceAllStringFunc(read("page.html"), func(place string) string {
		found := reference.FindStringSubmatch(place)
		if found[1] != "" {
			return "<script>" + put(found[1], &scripts) + "</script>"
		}
		return "<style>" + put(found[2], &styles) + "</style>"
	})
	return []byte(text), "default-src 'none'; script-src" + scripts.String() + "; style-src" + styles.String() +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
		"; require-trusted-types-for 'script'; trusted-types 'none'"
}

func read(name string) string {
	text, err := files.ReadFile(name)
	if err != nil {
		panic(err) // page.html names a file that is not embedded, which every test sees
	}
	return unseen.ReplaceAllString(string(text), "\n")
}

// unseen is what stands in the files for those who read them, and a browser passes
// over: how far lines are indented, empty lines, comments that have lines of their own
// or stand behind one, for which no string may have two slashes between spaces.
var unseen = regexp.MustCompile(`(?: // [^\n]*)?\n(?:[ ]+|//.*\n|/\*.*\*/\n|<!--.*-->\n|\n)*`)

// Handler returns what answers with the page. The headers that protect it from
// others are its own (Content-Security-Policy) and those that every answer of
// the daemon has.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		w.Write(document)
	})
}
