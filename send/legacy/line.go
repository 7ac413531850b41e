package legacy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"unicode"
)

// What can be wrong with a line, or with the way it came.
var (
	errTooLong   = fmt.Errorf("the request is longer than %d bytes: send FILE DEST and a newline", maxLineBytes)
	errNoNewline = errors.New("the connection ended before the request's newline, so that it may be cut short: send FILE DEST and a newline")
	errSlow      = fmt.Errorf("the request's newline did not come in time: send FILE DEST and a newline within %v", lineTime)
	errStopping  = errors.New("the s3daemon listener is stopping and takes no more requests")
)

// readLine reads up to the first newline, which is not part of the line. What
// else has been read by then is dropped; more says that there is such, or may
// be. A client that sent nothing at all is io.EOF; a passed deadline is
// errSlow.
func readLine(r io.Reader, most int) (line []byte, more bool, err error) {
	buf := make([]byte, 512)
	have := 0
	for {
		n, err := r.Read(buf[have:])
		if at := bytes.IndexByte(buf[have:have+n], '\n'); at >= 0 {
			end := have + at
			return buf[:end], end+1 < have+n, nil
		}
		have += n
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return nil, true, errSlow
		}
		switch {
		case have > most:
			return nil, true, errTooLong
		case err == io.EOF && have > 0:
			return nil, false, errNoNewline
		case err == io.EOF:
			return nil, false, io.EOF
		case err != nil:
			return nil, false, fmt.Errorf("read the request: %w", err)
		}
		if have == len(buf) {
			// One more than the longest line, for its newline.
			buf = append(buf, make([]byte, min(len(buf), most+1-len(buf)))...)
		}
	}
}

// parseLine splits a request into its two words as the first daemon did:
// white space off the end, then a split at every single space.
func parseLine(line string) (file, destination string, err error) {
	line = strings.TrimRightFunc(line, isSpace)
	file, destination, found := strings.Cut(line, " ")
	if !found {
		return "", "", errors.New("the request has one word: send FILE DEST and a newline")
	}
	if n := strings.Count(destination, " "); n > 0 {
		return "", "", fmt.Errorf("the request has %d spaces and must have one: names with spaces cannot be sent over this port, use the HTTP interface", n+1)
	}
	return file, destination, nil
}

// isSpace reports whether Python's str.rstrip takes r off. That is Unicode's
// White_Space and the four separators of ASCII besides.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f
}
