package page

import (
	"crypto/sha256"
	"encoding/base64"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var scripts = []string{"words.js", "draw.js", "page.js", "list.js", "failures.js", "one.js"}

// TestDocument: it is one file, with everything in it and not large; and its policy
// lets a browser run and apply just what is in it.
func TestDocument(t *testing.T) {
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	text := w.Body.String()
	if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != "text/html; charset=utf-8" {
		t.Errorf("%d, %q", w.Code, got)
	}
	if len(text) >= 64<<10 {
		t.Errorf("%d bytes: it is to be less than 64 KiB", len(text))
	}
	if outside := regexp.MustCompile(`(?i)\b(src|srcset|action|poster|data)=|@import|https?://[^w]`).FindAllString(text, -1); outside != nil {
		t.Errorf("it names other files: %q", outside)
	}
	if inline := regexp.MustCompile(`(?i)<[^>]+\s(style|on[a-z]+)=`).FindAllString(text, -1); inline != nil {
		t.Errorf("the policy would have a browser ignore %q", inline)
	}

	var want []string
	for _, block := range regexp.MustCompile(`(?s)<script>(.*?)</script>|<style>(.*?)</style>`).FindAllStringSubmatch(text, -1) {
		sum := sha256.Sum256([]byte(block[1] + block[2]))
		want = append(want, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	if len(want) != len(scripts)+1 {
		t.Fatalf("there are %d scripts and styles, of %d scripts and one style", len(want), len(scripts))
	}
	policy := "default-src 'none'; script-src " + strings.Join(want[1:], " ") + "; style-src " + want[0] +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
		"; require-trusted-types-for 'script'; trusted-types 'none'"
	if got := w.Header().Get("Content-Security-Policy"); got != policy {
		t.Errorf("the policy is %s\nwant %s", got, policy)
	}
}

// TestScripts: each element that a script asks for by its id is in the document,
// each id is asked for or leads somewhere, and nothing makes HTML of text.
func TestScripts(t *testing.T) {
	html := read("page.html")
	ids := make(map[string]bool)
	for _, found := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(html, -1) {
		if ids[found[1]] {
			t.Errorf("there are two elements %q", found[1])
		}
		ids[found[1]] = true
	}
	var all string
	for _, name := range scripts {
		all += read(name)
	}
	for _, found := range regexp.MustCompile(`\$\('([^']+)'\)`).FindAllStringSubmatch(all, -1) {
		if !ids[found[1]] {
			t.Errorf("a script asks for %q, which is not in page.html", found[1])
		}
	}
	for id := range ids {
		id := regexp.QuoteMeta(id)
		used := regexp.MustCompile(`['"#]` + id + `\b|="[^"]*\b` + id + `\b[^"]*"`)
		if !used.MatchString(all+read("page.css")+strings.ReplaceAll(html, ` id="`+id+`"`, "")) && !strings.HasPrefix(id, "i-") {
			t.Errorf("nothing uses the id %q of page.html", id)
		}
	}
	if sink := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc`).FindString(all); sink != "" {
		t.Errorf("a script has %s: what the daemon says is text", sink)
	}
}

// TestContrast: what is written and drawn can be read by those who see little of
// contrasts, in both schemes (WCAG 2.2, level AA: 4.5 for text, 3 for the rest).
func TestContrast(t *testing.T) {
	const text, drawing = 4.5, 3
	type pair struct {
		least            float64
		front, back, why string
	}
	pairs := []pair{
		{text, "text", "paper", "all text"}, {text, "text", "card", "all text"},
		{text, "faint", "paper", "the header"}, {text, "faint", "card", "names of figures"},
		{text, "link", "paper", "links"}, {text, "link", "card", "links, what runs"},
		{text, "text", "well-back", "the verdict"}, {text, "text", "attention-back", "the verdict"}, {text, "text", "trouble-back", "the verdict"}, {text, "text", "lost-back", "the verdict"},
		{text, "well", "well-back", "its word"}, {text, "attention", "attention-back", "its word"}, {text, "trouble", "trouble-back", "its word"}, {text, "lost", "lost-back", "its word"},
		{text, "well", "card", "done"}, {text, "attention", "card", "late"}, {text, "trouble", "card", "failed"}, {text, "trouble", "paper", "errors"},
		{text, "lost", "paper", "what is old"}, {text, "link", "lost-back", "links of what is old"}, {text, "trouble", "lost-back", "failed, and old"},
		{text, "attention", "lost-back", "late, and old"}, {text, "well", "lost-back", "done, and old"},
		{text, "card", "text", "a button that is pressed"},
		{drawing, "edge", "card", "borders of fields"}, {drawing, "edge", "paper", "borders of fields"},
		{drawing, "focus", "card", "what has the focus"}, {drawing, "focus", "paper", "what has the focus"},
		{drawing, "series", "card", "curve, columns, sending"}, {drawing, "series2", "card", "the store's part"}, {drawing, "series3", "card", "the queue's part"}, {drawing, "series4", "card", "the connection's part"},
		{drawing, "trouble", "card", "late columns, the deadline"},
	}
	placeholder := regexp.MustCompile(`::placeholder \{ color: var\(--([a-z]+)\); opacity: 1; \}`).FindStringSubmatch(read("page.css"))
	if placeholder == nil {
		t.Fatal("page.css leaves the colour of placeholders to the browser")
	}
	pairs = append(pairs, pair{text, placeholder[1], "card", "placeholders"})
	light, dark := schemes(t)
	for name, colours := range map[string]map[string]string{"light": light, "dark": dark} {
		for _, p := range pairs {
			got := contrast(t, colours[p.front], colours[p.back])
			if got < p.least {
				t.Errorf("%s: %s on %s (%s) has a contrast of %.2f, want %v", name, p.front, p.back, p.why, got, p.least)
			}
		}
	}
}

// schemes returns the colours of page.css by their names.
func schemes(t *testing.T) (light, dark map[string]string) {
	t.Helper()
	blocks := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(read("page.css"), -1)
	if len(blocks) != 2 {
		t.Fatalf("page.css has %d blocks of colours, want a light and a dark one", len(blocks))
	}
	of := func(block string) map[string]string {
		colours := make(map[string]string)
		for _, found := range regexp.MustCompile(`--([a-z0-9-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(block, -1) {
			colours[found[1]] = found[2]
		}
		return colours
	}
	light, dark = of(blocks[0][1]), of(blocks[1][1])
	for name := range light {
		if dark[name] == "" {
			t.Errorf("%s has no dark colour", name)
		}
	}
	return light, dark
}

// contrast returns the contrast ratio of two colours as WCAG 2.2 defines it.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 32)
	if err != nil || len(colour) != 7 {
		t.Fatalf("%q is no colour", colour)
	}
	linear := func(channel uint64) float64 {
		c := float64(channel&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n)
}
