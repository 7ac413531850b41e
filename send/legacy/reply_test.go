package legacy

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lsst-dm/s3daemon/push"
)

func TestReply(t *testing.T) {
	tests := []struct {
		err  error
		want string
	}{
		{nil, "Success"},
		{errors.New("no"), "no"},
		{errors.New("Success is relative"), "error: Success is relative"},
		{errors.New(" \n Success"), "error: Success"},
		{errors.New(""), "error: "},
		{errors.New("a\r\nb\x00c\xff"), "a b c\uFFFD"},
		{push.Errorf(push.FileNotFound, "there is no file %q", "/x"), `there is no file "/x" (file_not_found)`},
	}
	for _, test := range tests {
		if got := reply(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add("Success")
	f.Add(strings.Repeat("\u00e9", 3000))
	f.Add("x" + strings.Repeat("\U0001F52D", 3000))
	f.Fuzz(func(t *testing.T, text string) {
		got := reply(errors.New(text))
		if got == "" || strings.HasPrefix(got, "Success") || strings.ContainsAny(got, "\r\n\x00") || !utf8.ValidString(got) || len(got) > MaxReplyBytes {
			t.Errorf("%q", got)
		}
	})
}
