package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// optionsOf returns how the caller of POST /push wants it handled, by its
// headers and by the field async of its body; and, as Preference-Applied has
// it, which of his preferences that heeds. The error is a *push.Error.
func optionsOf(h http.Header, async bool) (push.Options, string, error) {
	key, err := parseIdempotencyKey(h["Idempotency-Key"])
	if err != nil {
		return push.Options{}, "", err
	}
	prefer := parsePrefer(h["Prefer"])
	opts := push.Options{Wait: push.Forever, IdempotencyKey: key, Traceparent: parseTraceparent(h["Traceparent"])}
	switch {
	case prefer.hasWait:
		opts.Wait = prefer.wait
	case prefer.respondAsync || async:
		opts.Wait = 0
	}
	return opts, prefer.String(), nil
}

// preferences are those of RFC 7240 that the daemon heeds.
type preferences struct {
	respondAsync bool
	hasWait      bool
	wait         time.Duration // whole seconds, 0 to maxPreferWait
}

// maxPreferWait is what any longer wait is taken for: what RFC 9111, 1.2.2, has
// for seconds that a program cannot hold.
const maxPreferWait = 1 << 31 * time.Second

// String returns the preferences as Prefer and Preference-Applied have them.
func (p preferences) String() string {
	var list []string
	if p.respondAsync {
		list = append(list, "respond-async")
	}
	if p.hasWait {
		list = append(list, "wait="+strconv.FormatInt(int64(p.wait/time.Second), 10))
	}
	return strings.Join(list, ", ")
}

// parsePrefer reads the Prefer headers of a request. A preference is only a
// wish, so there are no errors: what is not known or makes no sense is ignored,
// as RFC 7240 demands, and so is a preference that stands there again.
func parsePrefer(headers []string) preferences {
	var p preferences
	var seenAsync, seenWait bool
	for _, header := range headers {
		for _, element := range splitUnquoted(header, ',') {
			// What follows a semicolon are parameters, of which ours have none.
			name, value, ok := parsePreference(splitUnquoted(element, ';')[0])
			switch {
			case !ok:
			case name == "respond-async" && !seenAsync:
				seenAsync = true
				p.respondAsync = value == ""
			case name == "wait" && !seenWait:
				seenWait = true
				p.wait, p.hasWait = parseDelta(value)
			}
		}
	}
	return p
}

// parsePreference reads NAME or NAME=VALUE, the value a token or in quotes. The
// name is returned in small letters. An empty value is the same as none.
func parsePreference(s string) (name, value string, ok bool) {
	name, value, _ = strings.Cut(s, "=")
	name, value = trimSpace(name), trimSpace(value)
	if strings.HasPrefix(value, `"`) {
		if value, ok = unquote(value); !ok {
			return "", "", false
		}
	} else if value != "" && !isToken(value) {
		return "", "", false
	}
	return strings.ToLower(name), value, isToken(name)
}

// parseDelta reads whole seconds, the delta-seconds of RFC 9111.
func parseDelta(s string) (time.Duration, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > int64(maxPreferWait/time.Second) { // too many digits
		return maxPreferWait, true
	}
	return time.Duration(n) * time.Second, true
}

// parseIdempotencyKey reads the key of a request, bare or in quotes; none is
// the empty key. A key that is not understood is an error, a *push.Error: its
// caller relies on it.
func parseIdempotencyKey(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", nil
	}
	if len(headers) > 1 {
		return "", push.Errorf(push.InvalidParameter, "there are %d Idempotency-Key headers: a request has one", len(headers))
	}
	given := trimSpace(headers[0])
	key, ok := given, true
	if strings.HasPrefix(given, `"`) {
		key, ok = unquote(given)
	}
	if !ok || key == "" || len(key) > push.MaxIdempotencyKeyBytes || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", push.Errorf(push.InvalidParameter, "the Idempotency-Key %s is none: it is 1 to %d visible ASCII characters, bare or in double quotes",
			push.Quote(given), push.MaxIdempotencyKeyBytes)
	}
	return key, nil
}

// splitUnquoted cuts s at each separator that is not within double quotes. It
// returns at least one piece. A quote that is never closed goes on to the end.
func splitUnquoted(s string, separator byte) []string {
	var pieces []string
	begin, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++ // whatever it is, it does not end the quotes
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			pieces = append(pieces, s[begin:i])
			begin = i + 1
		}
	}
	return append(pieces, s[begin:])
}

// unquote returns what a quoted-string (RFC 9110, 5.6.4) holds, and whether s
// is one and nothing more.
func unquote(s string) (string, bool) {
	if len(s) < 2 || s[0] != '"' {
		return "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), i == len(s)-1
		case '\\':
			if i++; i == len(s) {
				return "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", false
}

// trimSpace removes the white space that a header may have around its parts.
func trimSpace(s string) string { return strings.Trim(s, " \t") }

// isToken reports whether s is a token (RFC 9110, 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}
