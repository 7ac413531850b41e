package main

import (
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// visible returns lines of the log with all that is not seen, or has a terminal show
// other than what is there, as \uXXXX: DEL and the other control characters above
// ASCII, which keys and paths may have, what turns the direction of writing, what has
// no width, and the ends of lines and paragraphs that are Unicode's own. In JSON that
// says the same, and elsewhere it is how Go quotes them. What is ASCII the formats
// have seen to.
func visible(lines []byte) []byte {
	var shown []byte
	from := 0 // what is before it is in shown
	for at := 0; at < len(lines); {
		if lines[at] < 0x7f {
			at++
			continue
		}
		r, size := utf8.DecodeRune(lines[at:])
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			shown = append(shown, lines[from:at]...)
			for _, unit := range utf16.AppendRune(nil, r) {
				shown = fmt.Appendf(shown, `\u%04x`, unit)
			}
			from = at + size
		}
		at += size
	}
	if from == 0 {
		return lines
	}
	return append(shown, lines[from:]...)
}
