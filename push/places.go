package push

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Places are the destinations that pushes may have. The zero value is all of
// them.
type Places struct{ patterns []pattern }

// pattern stands for the objects of some buckets whose keys begin with a
// prefix.
type pattern struct{ bucket, prefix string }

// ParsePlaces reads patterns that are written BUCKET or BUCKET/PREFIX. In
// BUCKET '*' stands for any text and '?' for any one character, but for the ':'
// after a tenant, which has to be written. PREFIX is to the letter, so that one
// which means a directory ends in '/'.
func ParsePlaces(patterns []string) (Places, error) {
	var p Places
	for _, text := range patterns {
		bucket, prefix, _ := strings.Cut(text, "/")
		if why := badPattern(bucket, prefix); why != "" {
			return Places{}, fmt.Errorf("%s %s", Quote(text), why)
		}
		p.patterns = append(p.patterns, pattern{bucket, prefix})
	}
	return p, nil
}

func badPattern(bucket, prefix string) string {
	strange := func(c rune) bool {
		return ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && !strings.ContainsRune(".-_:*?", c)
	}
	switch segments := strings.Split(prefix, "/"); {
	case bucket == "" || strings.ContainsFunc(bucket, strange) || bucket == "s3:":
		return "is neither BUCKET nor BUCKET/PREFIX, such as raw or raw/in/ (without s3://)"
	case prefix != "" && badKey(prefix) != "":
		return "has a prefix that no key begins with: it " + badKey(prefix)
	case slices.Contains(segments, "."), slices.Contains(segments, ".."), slices.Contains(segments[:len(segments)-1], ""):
		return `has a prefix with ".", ".." or nothing between two slashes, which a store may take for another one`
	}
	return ""
}

// Check returns an *Error with the code DestinationNotAllowed for a destination
// that is none of the places.
//
// Some proxies and stores resolve the ".." of a path, and would write beyond the
// prefix what is beneath it to the letter. So where a prefix is asked for, a key
// with such a segment has it not. What else they do, leaving out "." and empty
// segments, ends beneath the prefix.
func (p Places) Check(d Destination) error {
	if len(p.patterns) == 0 {
		return nil
	}
	climbs := false
	for _, allowed := range p.patterns {
		switch {
		case !allowed.hasBucket(d.Bucket) || !strings.HasPrefix(d.Key, allowed.prefix):
		case allowed.prefix != "" && slices.Contains(strings.Split(d.Key, "/"), ".."):
			climbs = true
		default:
			return nil
		}
	}
	if climbs {
		return Errorf(DestinationNotAllowed, `the destination %s has a ".." in its key, which may lead out of what S3DAEMON_BUCKETS allows: write the key without`, Quote(d.String()))
	}
	return Errorf(DestinationNotAllowed, "the destination %s is not among those that this daemon may write to: choose another, or have S3DAEMON_BUCKETS name it", Quote(d.String()))
}

func (p pattern) hasBucket(name string) bool {
	// path.Match has a character that no '*' or '?' stands for, and it is '/'.
	slashes := func(text string) string { return strings.ReplaceAll(text, ":", "/") }
	matched, _ := path.Match(slashes(p.bucket), slashes(name)) // badPattern has looked at it
	return matched
}
