package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/lsst-dm/s3daemon/push"
)

// decodePush reads what POST /push asks for: the request in its body, how it is
// to be handled, and which preferences that heeds. The error is a *push.Error.
func decodePush(w http.ResponseWriter, r *http.Request) (push.Request, push.Options, string, error) {
	asked, err := decodeBody(w, r)
	if err != nil {
		return push.Request{}, push.Options{}, "", err
	}
	opts, applied, err := optionsOf(r.Header, asked.async)
	return asked.Request, opts, applied, err
}

// order is what the body of POST /push asks for.
type order struct {
	push.Request
	async bool // its caller wants no more than to hear that it was accepted
}

func decodeBody(w http.ResponseWriter, r *http.Request) (order, error) {
	body, err := io.ReadAll(r.Body) // which is in memory
	if err != nil {
		return order{}, err
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		w.Header().Set("Accept-Encoding", "identity")
		return order{}, push.Errorf(push.UnsupportedMedia, "the Content-Encoding %s is not understood: send the body as it is", push.Quote(coding))
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	if err == nil && (charset == "" || charset == "utf-8" || charset == "us-ascii") {
		switch media {
		case "application/json":
			return decodeJSON(body)
		case "application/x-www-form-urlencoded":
			return decodeForm(body)
		}
	}
	w.Header().Set("Accept", "application/json, application/x-www-form-urlencoded")
	return order{}, push.Errorf(push.UnsupportedMedia,
		"the Content-Type %s is not understood: send application/json or application/x-www-form-urlencoded (curl -d does), in UTF-8", push.Quote(r.Header.Get("Content-Type")))
}

// fields are the names of the members of a body.
var fields = []string{"file", "destination", "label", "content_type", "metadata", "tags", "storage_class", "server_side_encryption", "sse_kms_key_id", "overwrite", "async"}

func unknownField(name string) error {
	return push.Errorf(push.UnknownField, "the field %s is not known: there are %s", push.Quote(name), strings.Join(fields, ", "))
}

// decodeJSON reads exactly one JSON object, with the known names as they are
// written in openapi.yaml and no others.
func decodeJSON(body []byte) (order, error) {
	var none order
	if !utf8.Valid(body) {
		return none, push.Errorf(push.InvalidBody, "the body is not UTF-8, as JSON must be: send a path that is not as a form, with its bytes percent-encoded")
	}
	members, err := membersOf(body)
	if err != nil {
		return none, err
	}
	for name, value := range members {
		switch {
		case !isField(name):
			return none, unknownField(name)
		case hasNull(value):
			return none, push.Errorf(push.InvalidField, "the field %s must not be null, nor hold a null: leave it out", push.Quote(name))
		}
	}
	async := string(members["async"])
	if async != "" && async != "true" && async != "false" {
		return none, push.Errorf(push.InvalidField, `the field "async" must be true or false, without quotes`)
	}
	var req push.Request // which has no member async
	if err := json.Unmarshal(body, &req); err != nil {
		return none, invalidJSON(err)
	}
	// Half of a surrogate pair decodes to this, silently, and names another
	// file or another object than was meant.
	const replacement = "\uFFFD"
	if strings.Contains(req.File+req.Destination, replacement) && !bytes.Contains(body, []byte(replacement)) && !bytes.Contains(bytes.ToLower(body), []byte(`\ufffd`)) {
		return none, push.Errorf(push.InvalidBody, `the body has a \u escape that is no character: half of a surrogate pair`)
	}
	return order{req, async == "true"}, nil
}

// hasNull reports whether the value is null or an object with a null in it.
// Decoding takes either for something empty.
func hasNull(value json.RawMessage) bool {
	if value[0] != 'n' && value[0] != '{' {
		return false // its type is checked later; an error here would cost more than the rest of the decoding
	}
	var members map[string]any
	if json.Unmarshal(value, &members) != nil {
		return false
	}
	for _, m := range members {
		if m == nil {
			return true
		}
	}
	return members == nil
}

// membersOf returns the members of the one JSON object that the body is. None
// may be there twice: which of the two was meant nobody can know. A json.Decoder
// would tell too, at several times the cost of all the rest of the decoding.
func membersOf(body []byte) (map[string]json.RawMessage, error) {
	if !json.Valid(body) {
		return nil, invalidJSON(json.Unmarshal(body, new(any)))
	}
	// From here on what stands where is known.
	rest := bytes.TrimLeft(body, " \t\r\n")
	if rest[0] != '{' {
		return nil, invalidJSON(nil)
	}
	members := make(map[string]json.RawMessage, len(fields))
	for {
		rest = bytes.TrimLeft(rest[1:], " \t\r\n") // after the brace, or a comma
		if rest[0] == '}' {
			return members, nil
		}
		n := valueLen(rest)
		var name string
		if err := json.Unmarshal(rest[:n], &name); err != nil {
			return nil, invalidJSON(err)
		}
		rest = bytes.TrimLeft(rest[n:], " \t\r\n:")
		n = valueLen(rest)
		if _, twice := members[name]; twice {
			return nil, push.Errorf(push.InvalidField, "the field %s is given twice", push.Quote(name))
		}
		members[name] = json.RawMessage(rest[:n])
		if rest = bytes.TrimLeft(rest[n:], " \t\r\n"); rest[0] == '}' {
			return members, nil
		}
	}
}

// valueLen returns how long the value is that valid JSON begins with.
func valueLen(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return i // the end of what a number or a word stood in
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(text)
}

func isField(name string) bool { return slices.Contains(fields, name) }

// invalidJSON says what is wrong with a JSON body; a nil err stands for a value that is no object.
func invalidJSON(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field != "" {
		want := "a string"
		switch wrongType.Field {
		case "metadata", "tags":
			want = "an object of strings"
		case "overwrite":
			want = "true or false, without quotes"
		}
		return push.Errorf(push.InvalidField, "the field %s must be %s, not %s %s", push.Quote(wrongType.Field), want, article(wrongType.Value), wrongType.Value)
	}
	detail := `the body is not one JSON object such as {"file": "/data/a.fits", "destination": "s3://bucket/key"}`
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		detail += fmt.Sprintf(": %v, at byte %d", syntax, syntax.Offset)
	}
	return &push.Error{Code: push.InvalidBody, Detail: detail, Err: err}
}

func article(noun string) string {
	if strings.HasPrefix(noun, "a") || strings.HasPrefix(noun, "o") {
		return "an"
	}
	return "a"
}

// decodeForm reads the same request from a form. The members of metadata and
// tags are fields of their own: metadata.NAME and tags.NAME.
func decodeForm(body []byte) (order, error) {
	var none order
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return none, push.Errorf(push.InvalidBody, "the form is not one: %s (curl --data-urlencode writes it right)", push.OneLine(err.Error()))
	}
	var asked order
	for name, values := range form {
		if len(values) > 1 {
			return none, push.Errorf(push.InvalidField, "the field %s is given %d times: one push has one of each", push.Quote(name), len(values))
		}
		known := true
		switch name {
		case "async":
			asked.async, err = parseAsync(values[0])
		case "overwrite":
			asked.Overwrite, err = parseOverwrite(values[0])
		default:
			known = setField(&asked.Request, name, values[0])
		}
		switch {
		case err != nil:
			return none, err
		case !known:
			return none, unknownField(name)
		}
	}
	return asked, nil
}

// parseAsync reads the field async of a form.
func parseAsync(value string) (bool, error) {
	switch value {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, push.Errorf(push.InvalidField, "the field \"async\" must be true or false, or 1 or 0, not %s", push.Quote(value))
}

// parseOverwrite reads the field overwrite of a form.
func parseOverwrite(value string) (*bool, error) {
	overwrite := value == "true"
	if !overwrite && value != "false" {
		return nil, push.Errorf(push.InvalidField, "the field \"overwrite\" must be true or false, not %s", push.Quote(value))
	}
	return &overwrite, nil
}

// setField sets the member of that name in a form, and reports whether there is
// one.
func setField(req *push.Request, name, value string) bool {
	value = strings.Clone(value) // which would keep all of the body
	if key, ok := strings.CutPrefix(name, "metadata."); ok {
		req.Metadata = with(req.Metadata, strings.Clone(key), value)
		return true
	}
	if key, ok := strings.CutPrefix(name, "tags."); ok {
		req.Tags = with(req.Tags, strings.Clone(key), value)
		return true
	}
	member, ok := map[string]*string{
		"file": &req.File, "destination": &req.Destination, "label": &req.Label,
		"content_type": &req.ContentType, "storage_class": &req.StorageClass,
		"server_side_encryption": &req.Encryption, "sse_kms_key_id": &req.KMSKeyID,
	}[name]
	if ok {
		*member = value
	}
	return ok
}

func with(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = make(map[string]string)
	}
	m[key] = value
	return m
}
