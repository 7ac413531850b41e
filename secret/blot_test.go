package secret

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestBlot(t *testing.T) {
	const key, id, password = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "AKIAEXAMPLE123456789", "p/ss word"
	token := strings.Repeat("FwoGZXIvYXdzEBYaDK+/z", 40) + "=="
	var b blotter
	b.hide(key, id, token, password, "short", "")
	for _, secret := range []string{key, id, token, password} {
		for how, said := range map[string]string{
			"as it is": secret, "in quotes": fmt.Sprintf("%q", secret), "in a query": url.QueryEscape(secret), "in a path": url.PathEscape(secret),
			"in small escapes": strings.NewReplacer("%2F", "%2f", "%2B", "%2b", "%3D", "%3d").Replace(url.QueryEscape(secret)),
			"in base64":        base64.StdEncoding.EncodeToString([]byte(secret)), "for a URL": base64.URLEncoding.EncodeToString([]byte(secret)),
			"behind a name": base64.StdEncoding.EncodeToString([]byte("me:" + secret)), "behind another": base64.StdEncoding.EncodeToString([]byte("user:" + secret)),
			"cut short": secret[:len(secret)*3/4],
		} {
			if how == "cut short" && len(secret) < 2*piece {
				continue // nothing tells it from other text
			}
			text := "the token is wrong: " + said + " was said"
			got := b.blot(text)
			if !strings.HasPrefix(got, "the token is wrong: ") || !strings.HasSuffix(got, " was said") || !strings.Contains(got, Blotted) {
				t.Errorf("%s %s: %s", secret[:4], how, got)
			}
			for i := 0; i+6 <= len(said); i += 3 {
				if len(secret) > 2*piece && strings.Contains(got, said[i:i+6]) {
					t.Errorf("%s %s: %q is left: %s", secret[:4], how, said[i:i+6], got)
				}
			}
		}
	}
	for _, text := range []string{
		"", "short", "AccessDenied: the bucket raw is not yours", "dial tcp 127.0.0.1:9: connect: connection refused",
		"The request signature we calculated does not match the signature you provided. Check your key and signing method.",
		"The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'", strings.Repeat("a", 100), "Ünïcödé İ",
	} {
		if got := b.blot(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	for _, said := range []string{
		"AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/s3/aws4_request", "Signature=0123456789abcdef", "signature%3d0123456789abcdef",
		"X-AMZ-Security-Token: of another", "Authorization: Bearer of.another", "Proxy-Authorization: Basic of=another", "Action=A&WebIdentityToken=eyJ",
	} {
		if got := b.blot("İ what? " + said); !strings.HasPrefix(got, "İ what? ") || !strings.HasSuffix(got, Blotted) || strings.Contains(got, "of") || strings.Contains(got, "AKIA") || strings.Contains(got, "0123") {
			t.Errorf("%q became %q", said, got)
		}
	}
}

// TestHiddenValuesAreBounded: keys that change for ever fill no memory.
func TestHiddenValuesAreBounded(t *testing.T) {
	var b blotter
	for i := range 1000 {
		b.hide(fmt.Sprintf("%020d", i))
	}
	if len(b.known) != mostHidden || len(b.pieces) > 1000*mostHidden {
		t.Errorf("%d values, %d pieces", len(b.known), len(b.pieces))
	}
	if last := fmt.Sprintf("%020d", 999); b.blot(last) != Blotted {
		t.Error("the last is not known")
	}
}

func FuzzBlot(f *testing.F) {
	f.Add("a text", "wJalrXUtnFEMI/K7MDENG")
	f.Add("%2fwJ wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI/K7MDENG")
	f.Fuzz(func(t *testing.T, text, value string) {
		var b blotter
		b.hide(value)
		if got := b.blot(text); len(value) >= leastHidden && strings.Contains(got, value) && !strings.Contains(Blotted, value) {
			t.Errorf("%q in %q", value, got)
		}
	})
}

func BenchmarkBlot(b *testing.B) {
	var bl blotter
	bl.hide(strings.Repeat("FwoGZXIvYXdzEBYaDK+/z", 100))
	for b.Loop() {
		bl.blot("The AWS Access Key Id you provided does not exist in our records, or is not what it was")
	}
}
