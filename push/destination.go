package push

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxKeyBytes is the longest key S3 can hold, in bytes of UTF-8.
const MaxKeyBytes = 1024

// Destination names one S3 object.
type Destination struct {
	Bucket string
	Key    string
}

// String returns the destination as s3://bucket/key. ParseDestination reads
// it back unchanged.
func (d Destination) String() string { return "s3://" + d.Bucket + "/" + d.Key }

// ParseDestination reads s3://bucket/key, or alias/bucket/key as the mc client
// writes it; the alias is ignored. What follows the bucket's slash is the key
// to the letter: nothing in it is decoded, cleaned or cut off, so it may hold
// slashes, spaces, '+', '%', '?' and '#'. Any error is an *Error with the code
// InvalidDestination.
func ParseDestination(s string) (Destination, error) {
	bad := func(format string, args ...any) (Destination, error) {
		return Destination{}, Errorf(InvalidDestination, format, args...)
	}
	const want = `write s3://bucket/key or alias/bucket/key`

	rest, isURI := strings.CutPrefix(s, "s3://")
	if !isURI {
		_, after, found := strings.Cut(s, "/")
		if !found {
			return bad("destination %s has neither bucket nor key: %s", Quote(s), want)
		}
		rest = after
	}
	bucket, key, found := strings.Cut(rest, "/")
	switch {
	case bucket == "":
		return bad("destination %s has no bucket: %s", Quote(s), want)
	case !found || key == "":
		return bad("destination %s has no key after the bucket %s: %s", Quote(s), Quote(bucket), want)
	}
	if why := badBucket(bucket); why != "" {
		return bad("bucket %s %s", Quote(bucket), why)
	}
	if why := badKey(key); why != "" {
		return bad("key %s %s", Quote(key), why)
	}
	return Destination{Bucket: bucket, Key: key}, nil
}

// badBucket says why no store could have a bucket of that name, or "". It is
// wider than Amazon's rules on purpose: Ceph has upper case, underscores,
// names of 255 bytes and "tenant:bucket". The store has the last word.
func badBucket(b string) string {
	if len(b) < 3 || len(b) > 255 {
		return "is not 3 to 255 characters long"
	}
	for i, c := range b {
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && !strings.ContainsRune(".-_:", c) {
			return fmt.Sprintf("has the character %q: a bucket's name is made of ASCII letters, digits, '.', '-', '_' and ':'", c)
		}
		if !alnum && (i == 0 || i == len(b)-1) {
			return "does not begin and end with a letter or digit"
		}
	}
	return ""
}

// badKey says why S3 cannot hold the key, or "".
func badKey(k string) string {
	if len(k) > MaxKeyBytes {
		return fmt.Sprintf("is %d bytes long: S3 holds at most %d", len(k), MaxKeyBytes)
	}
	if !utf8.ValidString(k) {
		return "is not valid UTF-8"
	}
	// Answers of the store repeat the key in XML 1.0, which does not have these:
	// with one in it a multipart upload could not be read back.
	if hasControl(k) {
		return "has an ASCII control character"
	}
	if strings.Contains(k, "\uFFFE") || strings.Contains(k, "\uFFFF") {
		return "has U+FFFE or U+FFFF, which are no characters"
	}
	// Amazon's own rule: reading from left to right, ".." may never leave the
	// bucket. A proxy that cleans paths would put such an object elsewhere; one
	// that cleans to nothing would become a request about the bucket itself.
	depth, climbs := 0, false
	for seg := range strings.SplitSeq(k, "/") {
		switch seg {
		case "..":
			depth--
			climbs = true
		case ".", "":
		default:
			depth++
		}
		if depth < 0 {
			return `leaves the bucket with ".."`
		}
	}
	if climbs && depth == 0 {
		return `is the bucket itself once its ".." are resolved`
	}
	return ""
}

// hasControl reports whether s has an ASCII control character.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// Quote quotes caller-supplied text for a message, shortened to about 80
// bytes, so that an error stays one readable line whatever it is about.
func Quote(s string) string {
	const most = 80
	if len(s) > most {
		cut := most
		for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return fmt.Sprintf("%q...", s[:cut])
	}
	return fmt.Sprintf("%q", s)
}
