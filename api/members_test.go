package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"
)

// decoded is what a json.Decoder makes of the body, with all the time that
// takes; nil if it is no object or has a member twice.
func decoded(body []byte) map[string]json.RawMessage {
	if !json.Valid(body) {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return nil
	}
	members := map[string]json.RawMessage{}
	for decoder.More() {
		token, err := decoder.Token()
		var value json.RawMessage
		if err != nil || decoder.Decode(&value) != nil {
			return nil
		}
		name, _ := token.(string)
		if _, twice := members[name]; twice {
			return nil
		}
		members[name] = value
	}
	return members
}

// FuzzMembers compares with the standard library.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"a" : "b\"}" , "c":{"d":[1,{"e":"]"}]},"f":null}`, `{"a":-1.5e3,"b":true}`, `[1]`, `"a"`, `1`, ``, `{`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"\ud800":1}`, "{\n\t\"a\"\r:\n[ ]\n,\"b\":{}\n}\n", `{"a":[]}`, `{"":""}`, `{"a":"\\"}`, `{"a":1} x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := membersOf(bytes.Clone(body))
		want := decoded(body)
		if (err == nil) != (want != nil) || !maps.EqualFunc(got, want, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%q has %q, %v, want %q", body, got, err, want)
		}
	})
}
