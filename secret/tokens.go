package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strings"
)

// minToken is the least that a token has, in characters: one that a person
// would think of can be guessed.
const minToken = 16

// Tokens are bearer tokens, any of which will do. Printed, they are a word.
type Tokens struct {
	first string
	sums  [][sha256.Size]byte
}

// ParseTokens reads tokens, one a line: at least 16 visible ASCII characters
// each, and at least one. Lines with nothing in them count for nothing.
func ParseTokens(content []byte) (Tokens, error) {
	var t Tokens
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		token := strings.TrimSuffix(line, "\n")
		if token == "" {
			continue
		}
		if strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			return Tokens{}, fmt.Errorf("line %d has white space or another character in it that no token has: one token a line, of visible ASCII characters", n)
		}
		if len(token) < minToken {
			return Tokens{}, fmt.Errorf("line %d has a token of fewer than %d characters, which can be guessed: openssl rand -hex 32 makes a good one", n, minToken)
		}
		if t.first == "" {
			t.first = token
		}
		t.sums = append(t.sums, sha256.Sum256([]byte(token)))
	}
	if t.first == "" {
		return Tokens{}, errors.New("has no token in it: one a line")
	}
	return t, nil
}

// Has reports whether the text is one of the tokens. How long that takes tells
// nothing of any of them.
func (t Tokens) Has(text string) bool {
	sum := sha256.Sum256([]byte(text))
	found := 0
	for i := range t.sums {
		found |= subtle.ConstantTimeCompare(sum[:], t.sums[i][:])
	}
	return found == 1
}

// First returns the first token, which is the one to ask with.
func (t Tokens) First() string { return t.first }

// Format keeps them out of whatever is printed.
func (t Tokens) Format(s fmt.State, _ rune) { io.WriteString(s, "tokens") }
