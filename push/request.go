package push

import (
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on the optional fields of a Request. Those of metadata and tags are
// S3's own (Amazon S3 User Guide, "Working with object metadata" and
// "Categorizing your objects using tags").
const (
	MaxPathBytes     = 4096 // PATH_MAX on Linux
	MaxLabelBytes    = 256
	MaxMetadataBytes = 2048 // names and values together
	MaxTags          = 10
	MaxTagNameRunes  = 128
	MaxTagValueRunes = 256
	MaxKMSKeyIDBytes = 2048 // as AWS KMS has it
)

// Encryptions are the kinds of server-side encryption that a push can ask for.
var Encryptions = []string{"AES256", "aws:kms", "aws:kms:dsse"}

// Request asks for one push. File and Destination are required.
type Request struct {
	File         string            `json:"file"`                             // absolute path on the daemon's host
	Destination  string            `json:"destination"`                      // see ParseDestination
	Label        string            `json:"label,omitempty"`                  // free text for logs and lists
	ContentType  string            `json:"content_type,omitempty"`           // a media type (RFC 9110); by the extension where empty
	Metadata     map[string]string `json:"metadata,omitempty"`               // kept with the object as x-amz-meta-NAME
	Tags         map[string]string `json:"tags,omitempty"`                   // the object's tags
	StorageClass string            `json:"storage_class,omitempty"`          // e.g. STANDARD_IA; the bucket's default where empty
	Encryption   string            `json:"server_side_encryption,omitempty"` // one of Encryptions; the bucket's default where empty
	KMSKeyID     string            `json:"sse_kms_key_id,omitempty"`         // for Encryptions of KMS; its default key where empty
	Overwrite    *bool             `json:"overwrite,omitempty"`              // false: an object that exists stays as it is; true where nil
}

// CreateOnly reports whether the push may make an object and not replace one.
func (r Request) CreateOnly() bool { return r.Overwrite != nil && !*r.Overwrite }

// Check reports the first thing wrong with the request as an *Error, without
// looking at the file system or the store, and returns the destination.
func (r Request) Check() (Destination, error) {
	if r.File == "" {
		return Destination{}, Errorf(MissingField, `the field "file" is missing: give the absolute path of the file to push`)
	}
	if r.Destination == "" {
		return Destination{}, Errorf(MissingField, `the field "destination" is missing: give it as s3://bucket/key`)
	}
	if err := CheckPath(r.File); err != nil {
		return Destination{}, err
	}
	dest, err := ParseDestination(r.Destination)
	if err != nil {
		return Destination{}, err
	}
	for _, check := range []func() string{r.badLabel, r.badContentType, r.badMetadata, r.badTags, r.badStorageClass, r.badEncryption} {
		if why := check(); why != "" {
			return Destination{}, Errorf(InvalidField, "%s", why)
		}
	}
	return dest, nil
}

// CheckPath reports as an *Error (code InvalidFile) why no file may have that
// path: it must be absolute, at most MaxPathBytes long and, since logs and the
// line protocol are lines, free of ASCII control characters.
func CheckPath(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return Errorf(InvalidFile, "file %s is not an absolute path: the daemon has another working directory than you, so begin with /", Quote(path))
	case len(path) > MaxPathBytes:
		return Errorf(InvalidFile, "file %s is %d bytes long: a path has at most %d", Quote(path), len(path), MaxPathBytes)
	case hasControl(path):
		return Errorf(InvalidFile, "file %s has an ASCII control character (NUL, a newline or another): rename the file", Quote(path))
	}
	return nil
}

func (r Request) badLabel() string {
	if !IsText(r.Label, MaxLabelBytes) {
		return "label must be one line of UTF-8 text of at most 256 bytes, without control characters"
	}
	return ""
}

// IsText reports whether s is one line of UTF-8 text of at most so many bytes, without
// control characters, those beyond ASCII included: what people write to be read, as
// labels are, and not a name that exists, as paths and keys are.
func IsText(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func (r Request) badContentType() string {
	if r.ContentType == "" {
		return ""
	}
	media, _, err := mime.ParseMediaType(r.ContentType)
	if err != nil || !strings.Contains(media, "/") || !isHeaderValue(r.ContentType) {
		return "content_type " + Quote(r.ContentType) + " is not a media type such as image/fits"
	}
	return ""
}

func (r Request) badMetadata() string {
	total := 0
	seen := make(map[string]bool, len(r.Metadata))
	for _, name := range slices.Sorted(maps.Keys(r.Metadata)) {
		value := r.Metadata[name]
		if lower := strings.ReplaceAll(strings.ToLower(name), "_", "-"); seen[lower] {
			return "metadata has the name " + Quote(lower) + " twice: in a header neither capitals make a difference nor, to many servers, '_' and '-'"
		} else {
			seen[lower] = true
		}
		if !isToken(name) {
			return "metadata name " + Quote(name) + " is not one: use letters, digits and '-'"
		}
		if !isHeaderValue(value) {
			return "metadata " + Quote(name) + " has a value that a header cannot carry: use printable ASCII"
		}
		total += len(name) + len(value)
	}
	if total > MaxMetadataBytes {
		return "metadata is over 2048 bytes, names and values together, which is the most S3 keeps"
	}
	return ""
}

func (r Request) badTags() string {
	if len(r.Tags) > MaxTags {
		return "there are more than 10 tags, which is the most S3 keeps"
	}
	for _, name := range slices.Sorted(maps.Keys(r.Tags)) {
		value := r.Tags[name]
		if name == "" || !goodTag(name, MaxTagNameRunes) || !goodTag(value, MaxTagValueRunes) {
			return "tag " + Quote(name) + " is not one: a name has 1 to 128 characters of UTF-8, a value at most 256, and neither an ASCII control character"
		}
		if strings.HasPrefix(strings.ToLower(name), "aws:") {
			return "tag " + Quote(name) + " is not one: names that begin with aws: are the store's own"
		}
	}
	return ""
}

func goodTag(s string, most int) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= most && !hasControl(s)
}

func (r Request) badStorageClass() string {
	for _, c := range []byte(r.StorageClass) {
		if ('A' > c || c > 'Z') && ('0' > c || c > '9') && c != '_' && c != '-' {
			return "storage_class " + Quote(r.StorageClass) + " is not one: it is written like STANDARD_IA"
		}
	}
	if len(r.StorageClass) > 64 {
		return "storage_class " + Quote(r.StorageClass) + " is longer than 64 characters"
	}
	return ""
}

func (r Request) badEncryption() string {
	switch {
	case r.Encryption != "" && !slices.Contains(Encryptions, r.Encryption):
		return "server_side_encryption " + Quote(r.Encryption) + " is none of " + strings.Join(Encryptions, ", ")
	case r.KMSKeyID == "":
		return ""
	case !strings.HasPrefix(r.Encryption, "aws:kms"):
		return "sse_kms_key_id needs a server_side_encryption that has such keys: aws:kms or aws:kms:dsse"
	case len(r.KMSKeyID) > MaxKMSKeyIDBytes:
		return "sse_kms_key_id is longer than 2048 characters"
	case strings.ContainsFunc(r.KMSKeyID, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "sse_kms_key_id " + Quote(r.KMSKeyID) + " is not one: give the id, the ARN or the alias of a key"
	}
	return ""
}

// isToken reports whether s may be part of a header's name (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isHeaderValue reports whether s survives as a header's value: printable
// ASCII that neither begins nor ends with a space, which HTTP would trim.
func isHeaderValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s == strings.TrimSpace(s)
}
