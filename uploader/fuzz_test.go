package uploader

import (
	"bytes"
	"crypto/md5"
	"encoding/xml"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/minio/crc64nvme"

	"github.com/lsst-dm/s3daemon/push"
)

// FuzzRefusal: whatever a store answers, what is told of it is one line that a
// message can carry, and of an error as S3 writes it nothing is lost.
func FuzzRefusal(f *testing.F) {
	f.Add(503, []byte("<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"), "SlowDown", "Reduce your rate", "5")
	f.Add(403, []byte("<?xml version=\"1.0\" encoding=\"x\"?><Error>"), "A&B<C>", "two\nlines", "-1")
	f.Add(200, []byte("<html>"), "", "\x00\xff", "Mon, 02 Jan 2006 15:04:05 GMT")
	f.Add(500, bytes.Repeat([]byte("<a>"), 100), strings.Repeat("C", 600), strings.Repeat("ü", 600), "99999999999999999999")
	f.Fuzz(func(t *testing.T, status int, body []byte, code, message, after string) {
		p := &putter{}
		told := func(body []byte) push.StoreAnswer {
			resp := &http.Response{StatusCode: status, Header: http.Header{"X-Amz-Request-Id": {message}, "Retry-After": {after}}}
			err := p.refusal(resp, body)
			if wait := retryAfter(err); wait < 0 || wait > longestRetryAfter {
				t.Errorf("Retry-After %q is %v", after, wait)
			}
			transient(err)
			answer := answerOf(err)
			for _, text := range []string{answer.Code, answer.Message, answer.RequestID, answerText(answer), reasonOf(err)} {
				if strings.ContainsFunc(text, unicode.IsControl) || len(text) > 2000 {
					t.Errorf("of %q it is told: %q", body, text)
				}
			}
			return answer
		}
		told(body)
		var written bytes.Buffer
		written.WriteString("<Error><Code>")
		_ = xml.EscapeText(&written, []byte(code))
		written.WriteString("</Code><Message>")
		_ = xml.EscapeText(&written, []byte(message))
		written.WriteString("</Message></Error>")
		if !isError(written.Bytes()) {
			t.Errorf("%q is no error", written.Bytes())
		}
		answer := told(written.Bytes())
		if plainText(code) && answer.Code != code && code != "UnknownError" {
			t.Errorf("the code %q is told as %q", code, answer.Code)
		}
		if plainText(message) && answer.Message != message && message != answer.Code && message != "UnknownError" {
			t.Errorf("the message %q is told as %q", message, answer.Message)
		}
	})
}

// plainText reports whether a text is told as it is: a short line of words.
func plainText(s string) bool {
	return len(s) <= 500 && strings.Join(strings.Fields(s), " ") == s && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == unicode.ReplacementChar || !xmlChar(r)
	})
}

// xmlChar reports whether XML 1.0 has the character.
func xmlChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000
}

// FuzzETags: of two values that differ none is taken for the digest of anything,
// and of one that is an MD5 neither quotes nor marks matter.
func FuzzETags(f *testing.F) {
	const sum = "25f9e794323b453885f5181f1b624d0b"
	f.Add(sum, sum)
	f.Add(`"`+sum+`"`, `W/"`+sum+`"`)
	f.Add("&quot;"+sum+"&quot;", "'"+sum+"-2'")
	f.Add("", " ")
	f.Add("", "\"\v\"")
	f.Add(`W/W/""`, sum+"-99999999999999999999")
	f.Fuzz(func(t *testing.T, a, b string) {
		h := http.Header{"Etag": {a, b}}
		joinValues(h, "Etag")
		joined := bareETag(h.Get("Etag"))
		same := bareETag(a) == bareETag(b)
		if !same && (isMD5(joined) || isMD5OfParts(joined) || !contradictory(joined)) {
			t.Errorf("%q and %q are taken for %q", a, b, joined)
		}
		if same && joined != bareETag(a) {
			t.Errorf("%q twice is %q", a, joined)
		}
		for _, etag := range []string{a, b} {
			bare := bareETag(etag)
			n := partsByETag(bare)
			if n < 0 || (n > 0) != (isMD5(bare) || isMD5OfParts(bare)) && n != 0 || isMD5(bare) && n != 1 {
				t.Errorf("%q is of %d parts", bare, n)
			}
			if !isMD5(bare) {
				continue
			}
			for _, form := range []string{bare, `"` + bare + `"`, `W/"` + bare + `"`, "&quot;" + bare + "&quot;", " " + bare + "\t"} {
				if bareETag(form) != bare {
					t.Errorf("%q is %q without quotes", form, bareETag(form))
				}
			}
		}
	})
}

// FuzzJudge: no answer is proof that contradicts the bytes, and none that agrees
// with them speaks against the store.
func FuzzJudge(f *testing.F) {
	content := []byte("123456789")
	ours := &digests{have: withCRC | withMD5, crc: crc64nvme.Checksum(content), md5: md5.Sum(content)}
	f.Add("", "", byte(withCRC), false, false)
	f.Add(ours.crc64nvme(), ours.md5Hex(), byte(withMD5), false, true)
	f.Add(ours.crc64nvme(), strings.ToUpper(ours.md5Hex()), byte(withSHA256), true, true)
	f.Add("AAAAAAAAAAA=", ours.md5Hex()+"-1", byte(withCRC|withMD5), false, false)
	f.Add(ours.crc64nvme(), ours.md5Hex()+", "+ours.md5Hex(), byte(withCRC), false, true)
	f.Fuzz(func(t *testing.T, crc, etag string, carried byte, opaque, believed bool) {
		says := claim{crc, bareETag(etag), opaque}
		for _, have := range []algorithms{withCRC, withCRC | withMD5} {
			known := *ours
			known.have = have
			v := judge(&known, algorithms(carried), says, believed)
			told := 0
			for _, one := range []bool{v.proof != proof{}, v.differs != nil, v.needsMD5} {
				if one {
					told++
				}
			}
			agrees := crc == "" || crc == ours.crc64nvme()
			isSum := isMD5(says.etag) && !opaque
			sumAgrees := strings.EqualFold(says.etag, ours.md5Hex())
			switch {
			case told > 1:
				t.Errorf("%+v is judged in two ways: %+v", says, v)
			case v.proof != proof{} && (!agrees || isSum && have&withMD5 != 0 && !sumAgrees || contradictory(says.etag)):
				t.Errorf("%+v is proof by %+v", says, v.proof)
			case v.differs != nil && agrees && (sumAgrees || !isSum && !contradictory(says.etag)):
				t.Errorf("%+v is said to be of other bytes: %+v", says, *v.differs)
			case v.needsMD5 && have&withMD5 != 0:
				t.Errorf("%+v asks for the MD5, which is known", says)
			}
		}
	})
}

// FuzzKey: a file holds a key that a header can carry, with or without a newline,
// or it is refused in words that do not show it.
func FuzzKey(f *testing.F) {
	for _, s := range []string{"", "\n", "AKIAEXAMPLE", "AKIAEXAMPLE\n", "secret/with+signs=\r\n", "two words", "key\n\n", "\xef\xbb\xbfkey", "k\x00y", strings.Repeat("k", longestKey), strings.Repeat("k", longestKey+1)} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "key")
	said := func(content []byte) (string, error) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			f.Fatal(err)
		}
		return readKey(path)
	}
	mistakes := make(map[string]bool)
	for _, content := range []string{"", "a b", strings.Repeat("k", longestKey+1)} {
		_, err := said([]byte(content))
		if err == nil {
			f.Fatalf("%.20q is a key", content)
		}
		mistakes[err.Error()] = true
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		key, err := said(content)
		if err != nil {
			if !mistakes[err.Error()] || key != "" {
				t.Errorf("of %q it is said: %v", content, err)
			}
			return
		}
		rest := strings.TrimPrefix(string(content), key)
		if key == "" || rest != "" && rest != "\n" && rest != "\r" && rest != "\r\n" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("%q is the key %q", content, key)
		}
	})
}
