package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lsst-dm/s3daemon/push"
)

// maxBody is the most that a request's body may have, in bytes: two paths of
// the longest kind and all the metadata that S3 keeps fit several times.
const maxBody = 64 << 10

// bodyTimeout is how long a caller may take to send the body.
const bodyTimeout = 10 * time.Second

// decodePush reads the request that the body of POST /push asks for. The error
// is a *push.Error.
func decodePush(w http.ResponseWriter, r *http.Request) (push.Request, error) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	decode := map[string]func([]byte) (push.Request, error){
		"application/json":                  decodeJSON,
		"application/x-www-form-urlencoded": decodeForm,
	}[media]
	if err != nil || decode == nil || charset != "" && charset != "utf-8" && charset != "us-ascii" {
		w.Header().Set("Accept", "application/json, application/x-www-form-urlencoded")
		return push.Request{}, push.Errorf(push.UnsupportedMedia,
			"the Content-Type %s is not understood: send application/json or application/x-www-form-urlencoded (curl -d does), in UTF-8", push.Quote(r.Header.Get("Content-Type")))
	}
	body, err := readBody(w, r)
	if err != nil {
		return push.Request{}, err
	}
	return decode(body)
}

// readBody reads the whole body within the limits on size and time. The limit
// on time ends with the body: the caller may then wait for the answer as long
// as it takes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer in a test can
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = control.SetReadDeadline(time.Time{})

	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, push.Errorf(push.BodyTooLarge, "the request's body is over %d bytes: send the file's path, not the file", maxBody)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, push.Errorf(push.InvalidBody, "the request's body did not arrive within %v", bodyTimeout)
	case err != nil:
		return nil, &push.Error{Code: push.InvalidBody, Detail: "the request's body could not be read: " + push.OneLine(err.Error()), Err: err}
	}
	return body, nil
}

// fields are the names of a request's members.
var fields = []string{"file", "destination", "label", "content_type", "metadata", "tags", "storage_class"}

func unknownField(name string) error {
	return push.Errorf(push.UnknownField, "the field %s is not known: there are %s", push.Quote(name), strings.Join(fields, ", "))
}

// decodeJSON reads exactly one JSON object, with the known names as they are
// written in openapi.yaml and no others.
func decodeJSON(body []byte) (push.Request, error) {
	var none push.Request
	if !utf8.Valid(body) {
		return none, push.Errorf(push.InvalidBody, "the body is not UTF-8, as JSON must be: send a path that is not as a form, with its bytes percent-encoded")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return none, invalidJSON(err)
	}
	for name := range members {
		if !isField(name) {
			return none, unknownField(name)
		}
	}
	var req push.Request
	if err := json.Unmarshal(body, &req); err != nil {
		return none, invalidJSON(err)
	}
	return req, nil
}

func isField(name string) bool {
	for _, f := range fields {
		if f == name {
			return true
		}
	}
	return false
}

// invalidJSON says what is wrong with a JSON body; a nil err stands for null.
func invalidJSON(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field != "" {
		want := "a string"
		if wrongType.Field == "metadata" || wrongType.Field == "tags" {
			want = "an object of strings"
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
func decodeForm(body []byte) (push.Request, error) {
	var none push.Request
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return none, push.Errorf(push.InvalidBody, "the form is not one: %s (curl --data-urlencode writes it right)", push.OneLine(err.Error()))
	}
	var req push.Request
	for name, values := range form {
		if len(values) > 1 {
			return none, push.Errorf(push.InvalidField, "the field %s is given %d times: one push has one of each", push.Quote(name), len(values))
		}
		if !setField(&req, name, values[0]) {
			return none, unknownField(name)
		}
	}
	return req, nil
}

// setField sets the member of that name in a form, and reports whether there is
// one.
func setField(req *push.Request, name, value string) bool {
	if key, ok := strings.CutPrefix(name, "metadata."); ok {
		req.Metadata = with(req.Metadata, key, value)
		return true
	}
	if key, ok := strings.CutPrefix(name, "tags."); ok {
		req.Tags = with(req.Tags, key, value)
		return true
	}
	member, ok := map[string]*string{
		"file": &req.File, "destination": &req.Destination, "label": &req.Label,
		"content_type": &req.ContentType, "storage_class": &req.StorageClass,
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
