package secret

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Blotted stands in a text where something was taken out of it.
const Blotted = "[secret]"

const (
	// leastHidden is the length, in bytes, below which a value is not looked for: it
	// could not be told from other text.
	leastHidden = 8
	// piece is how much of a secret tells that it is one, and step how far apart the
	// pieces begin that are looked for: of every 15 bytes of it one is among them.
	piece, step = 12, 4
	// mostHidden is how many values are known at most; the oldest leave first. A
	// daemon whose keys change every hour knows those of the last days.
	mostHidden = 64
)

// hidden are the secrets of this process: whoever shows text does not know which of
// them may be in it.
var hidden blotter

// Hide has the values taken out of all text that is given to Blot from now on.
func Hide(values ...string) { hidden.hide(values...) }

// Blot returns a text that came from elsewhere without the secrets that may be in it:
// whoever was sent one may say it again. A word that has a part of a hidden value in
// it goes whole, be it as it is, quoted, in a URL or in base64; and from the first
// thing on that only a signed request has, all the rest of the text does.
func Blot(text string) string { return hidden.blot(text) }

// blotter knows values by all the ways to write them.
type blotter struct {
	mu     sync.RWMutex // guards all below
	known  []string     // the oldest first
	short  []string     // what is too short to be known by a piece, in each form
	pieces map[[piece]byte]struct{}
}

func (b *blotter) hide(values ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	news := false
	for _, value := range values {
		if len(value) >= leastHidden && !slices.Contains(b.known, value) {
			b.known, news = append(b.known, value), true
		}
	}
	if !news {
		return
	}
	b.known = b.known[max(0, len(b.known)-mostHidden):]
	b.short, b.pieces = nil, make(map[[piece]byte]struct{})
	for _, value := range b.known {
		for _, form := range formsOf(value) {
			b.addLocked(form)
		}
	}
}

func (b *blotter) addLocked(form string) {
	if len(form) < piece+step-1 {
		b.short = append(b.short, form)
		return
	}
	for i := 0; i+piece <= len(form); i += step {
		b.pieces[[piece]byte([]byte(form[i:]))] = struct{}{}
	}
}

// formsOf returns a value as others may write it.
func formsOf(value string) []string {
	quoted := strconv.Quote(value)
	query, path := url.QueryEscape(value), url.PathEscape(value)
	forms := []string{value, quoted[1 : len(quoted)-1], query, path, lowerEscapes(query), lowerEscapes(path)}
	for _, by := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 { // it may stand behind other bytes, as in user:password
			text := by.EncodeToString(append(make([]byte, shift), value...))
			forms = append(forms, text[(shift*8+5)/6:len(text)-1])
		}
	}
	return forms
}

// lowerEscapes writes the digits of percent escapes as some programs do.
func lowerEscapes(text string) string {
	parts := strings.Split(text, "%")
	for i, part := range parts[1:] {
		parts[i+1] = strings.ToLower(part[:2]) + part[2:]
	}
	return strings.Join(parts, "%")
}

// ofRequests is what nothing has but a request that is signed, or what repeats it, in
// small letters.
var ofRequests = []string{
	"aws4-hmac", "credential=", "credential%3d", "signature=", "signature%3d", "x-amz-security-token", "x-amz-signature", "x-amz-credential",
	"authorization:", "webidentitytoken=", "webidentitytoken%3d",
}

func (b *blotter) blot(text string) string {
	text = cutAtRequest(text)
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, form := range b.short {
		text = strings.ReplaceAll(text, form, Blotted)
	}
	if len(b.pieces) == 0 {
		return text
	}
	var out strings.Builder
	kept := 0 // up to where text is in out, or blotted
	for i := 0; i+piece <= len(text); i++ {
		if _, is := b.pieces[[piece]byte([]byte(text[i:i+piece]))]; !is {
			continue
		}
		from, to := i, i+piece
		for from > kept && ofWord(text[from-1]) {
			from--
		}
		for to < len(text) && ofWord(text[to]) {
			to++
		}
		out.WriteString(text[kept:from])
		out.WriteString(Blotted)
		kept, i = to, to-1
	}
	if kept == 0 {
		return text
	}
	out.WriteString(text[kept:])
	return out.String()
}

// cutAtRequest returns the text up to where it begins to repeat a request.
func cutAtRequest(text string) string {
	lower := lowered(text)
	first := len(text)
	for _, mark := range ofRequests {
		if i := strings.Index(lower[:first], mark); i >= 0 {
			first = i
		}
	}
	if first == len(text) {
		return text
	}
	return text[:first] + Blotted
}

// lowered returns a text of the same length with small letters, as far as they are ASCII.
func lowered(text string) string {
	lower := []byte(text)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return string(lower)
}

// ofWord reports whether a byte may be part of a secret in any of its forms.
func ofWord(c byte) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune("<>\"'`()[]{},;:|", rune(c))
}
