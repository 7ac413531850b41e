package uploader

import (
	"bytes"

	"github.com/lsst-dm/s3daemon/journal"
)

// textSearch finds the pushes that have a text somewhere. Letters of ASCII are the same in
// either case, and all else is compared as it is. It is for one goroutine.
type textSearch struct {
	text   []byte // in small letters
	ofID   bool   // it may be in an id
	folded []byte // room for what is looked at
}

// newTextSearch makes one for a text, which is not empty.
func newTextSearch(text string) *textSearch {
	small := fold(nil, []byte(text))
	return &textSearch{text: small, ofID: len(bytes.Trim(small, "0123456789abcdef-")) == 0}
}

// finds reports whether the text is in the file, the destination, the label or the id of
// a push. What it takes grows with the length of these alone, whatever is looked for:
// somebody who asks for what is nearly everywhere takes no more than others.
func (s *textSearch) finds(b *journal.Brief) bool {
	return s.in(b.File) || s.in(b.Destination) || s.in(b.Label) || s.ofID && s.in([]byte(b.ID.String()))
}

func (s *textSearch) in(field []byte) bool {
	if len(field) < len(s.text) {
		return false
	}
	s.folded = fold(s.folded[:0], field)
	return bytes.Contains(s.folded, s.text)
}

// fold appends a text in small letters.
func fold(to, text []byte) []byte {
	for _, c := range text {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		to = append(to, c)
	}
	return to
}
