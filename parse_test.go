package main

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// failed returns what the parser found, as one error.
func failed(p *parser) error { return errors.Join(p.mistakes...) }

func TestParseNumber(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int // -1 where it is a mistake
	}{
		{"1", 1}, {"25", 25}, {"1000", 1000}, {"0025", 25}, {"+7", 7},
		{"", 25}, // the default of S3DAEMON_MAX_CONNECTIONS
		{"0", -1}, {"1001", -1}, {"-5", -1}, {"2.5", -1}, {"1e2", -1}, {"0x10", -1}, {"1_0", -1}, {" 5", -1}, {"5 ", -1},
		{"many", -1}, {"99999999999999999999", -1}, {"tcp://10.0.0.1:15556", -1}, {"２５", -1},
	} {
		var p parser
		got := p.number("S3DAEMON_MAX_CONNECTIONS", tt.text, 1, 1000)
		switch err := failed(&p); {
		case tt.want < 0 && err == nil:
			t.Errorf("%q = %d, want a mistake", tt.text, got)
		case tt.want >= 0 && (err != nil || got != tt.want):
			t.Errorf("%q = %d, %v, want %d", tt.text, got, err, tt.want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	const least, most = 10 * time.Millisecond, 5 * time.Minute
	for _, tt := range []struct {
		text string
		want time.Duration // -1 where it is a mistake
	}{
		{"5s", 5 * time.Second}, {"1m30s", 90 * time.Second}, {"250ms", 250 * time.Millisecond}, {"0.5m", 30 * time.Second},
		{"5", 5 * time.Second}, {"5.0", 5 * time.Second}, {"0.5", 500 * time.Millisecond}, {"3e1", 30 * time.Second},
		{"", 5 * time.Second}, // the default of S3DAEMON_CONNECT_TIMEOUT
		{"10ms", least}, {"0.01", least}, {"5m", most}, {"300", most},
		{"9ms", -1}, {"0.009", -1}, {"5m1ns", -1}, {"300.1", -1}, {"0", -1}, {"-1", -1}, {"-5s", -1},
		{"NaN", -1}, {"Inf", -1}, {"-Inf", -1}, {"1e9", -1}, {"1e300", -1}, {"1e400", -1}, {"99999999h", -1},
		{"5 s", -1}, {" 5", -1}, {"5sec", -1}, {"soon", -1}, {"5,0", -1},
	} {
		var p parser
		got := p.duration("S3DAEMON_CONNECT_TIMEOUT", tt.text, least, most)
		switch err := failed(&p); {
		case tt.want < 0 && err == nil:
			t.Errorf("%q = %v, want a mistake", tt.text, got)
		case tt.want >= 0 && (err != nil || got != tt.want):
			t.Errorf("%q = %v, %v, want %v", tt.text, got, err, tt.want)
		}
	}
}

// TestParseDurationFromZero: where zero is allowed nothing below it is, however
// it is written.
func TestParseDurationFromZero(t *testing.T) {
	for text, good := range map[string]bool{"0": true, "0s": true, "-0": true, "1ns": true, "-1ns": false, "-1": false, "NaN": false, "-Inf": false, "Inf": false} {
		var p parser
		got := p.duration("S3DAEMON_DRAIN_TIMEOUT", text, 0, math.MaxInt64)
		if (failed(&p) == nil) != good || good && got < 0 {
			t.Errorf("%q = %v, %v, want good: %v", text, got, failed(&p), good)
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	for _, tt := range []struct{ text, want, says string }{
		{"", "", ""},
		{"https://s3.example.org", "https://s3.example.org", ""},
		{"https://s3.example.org/", "https://s3.example.org", ""},
		{"http://127.0.0.1:9000", "http://127.0.0.1:9000", ""},
		{"http://[::1]:9000", "http://[::1]:9000", ""},
		{"https://gateway.example.org/s3/", "https://gateway.example.org/s3", ""},
		{"https://s3.example.org:65535", "https://s3.example.org:65535", ""},

		{"s3.example.org", "", "not a URL"},
		{"s3.example.org:9000", "", "not a URL"},
		{"s3://bucket", "", "not a URL"},
		{"ftp://s3.example.org", "", "not a URL"},
		{"//s3.example.org", "", "not a URL"},
		{"https://", "", "not a URL"},
		{"https:///path", "", "not a URL"},
		{"https://:9000", "", "not a URL"},
		{"https:s3.example.org", "", "not a URL"},
		{"https://s3.example.org:port", "", "not a URL"},
		{"https://s3 example.org", "", "not a URL"},
		{" https://s3.example.org", "", "not a URL"},
		{"https://s3.example.org\n", "", "not a URL"},
		{"https://%zz", "", "not a URL"},
		{"https://s3.example.org:0", "", "port"},
		{"https://s3.example.org:65536", "", "port"},
		{"https://s3.example.org?x=1", "", "query"},
		{"https://s3.example.org#x", "", "fragment"},
		{"https://me@s3.example.org", "", "AWS_ACCESS_KEY_ID"},
		{"https://me:hunter2@s3.example.org", "", "AWS_ACCESS_KEY_ID"},
		{"https://:hunter2@s3.example.org", "", "AWS_ACCESS_KEY_ID"},
	} {
		var p parser
		got := p.endpoint("S3_ENDPOINT_URL", tt.text)
		err := failed(&p)
		if tt.says == "" {
			if err != nil || got != tt.want {
				t.Errorf("%q = %q, %v, want %q", tt.text, got, err, tt.want)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), "S3_ENDPOINT_URL: ") || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %v, want %q in it", tt.text, err, tt.says)
		}
	}
}

func TestParseListen(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string // nil where it is a mistake
	}{
		{"127.0.0.1:15556", []string{"127.0.0.1:15556"}},
		{"127.0.0.1:0", []string{"127.0.0.1:0"}},
		{"[::1]:15556", []string{"[::1]:15556"}},
		{"localhost:65535", []string{"localhost:65535"}},
		{":15556", []string{":15556"}},
		{"unix:/run/s3 daemon.sock", []string{"unix:/run/s3 daemon.sock"}},
		{" 127.0.0.1:1 ,, unix:/s , [::1]:2,", []string{"127.0.0.1:1", "unix:/s", "[::1]:2"}},

		{",", nil}, {" ", nil}, {"15556", nil}, {"localhost", nil}, {"127.0.0.1:", nil}, {"127.0.0.1:65536", nil}, {"127.0.0.1:-1", nil},
		{"127.0.0.1:http", nil}, {"::1:15556", nil}, {"http://127.0.0.1:15556", nil}, {"unix:", nil}, {"unix:run/s", nil}, {"/run/s", nil},
		{"tcp://10.0.0.1:15556", nil}, {"127.0.0.1:1,nowhere", nil},
	} {
		var p parser
		got := p.listen("S3DAEMON_LISTEN", tt.text)
		switch err := failed(&p); {
		case tt.want == nil && err == nil:
			t.Errorf("%q = %q, want a mistake", tt.text, got)
		case tt.want != nil && (err != nil || !slices.Equal(got, tt.want)):
			t.Errorf("%q = %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
}

func TestParseChoice(t *testing.T) {
	for text, want := range map[string]string{"json": "json", "TEXT": "text", "": "auto", "xml": "", " json": "", "json,text": ""} {
		var p parser
		got := p.choice("S3DAEMON_LOG_FORMAT", text, "auto", "json", "text")
		if err := failed(&p); (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q = %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestProxies(t *testing.T) {
	for text, good := range map[string]bool{
		"": true, "http://proxy.example:3128": true, "https://user:p%2Fw@proxy.example": true, "socks5://[::1]:1080": true, "socks5h://p": true, "proxy.example:3128": true, "10.0.0.1:80": true, "proxy": true, "http://proxy/": true,
		"http://user:p/secret@proxy.example:3128": false, "http://user:%zsecret@proxy": false, "http://": false, "http:///secret": false, "ftp://secret.example": false, "http://secret:port": false, "secret.example:99999": false, "http://secret.example:": false, "sec ret:80": false,
	} {
		for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
			err := checkProxies(func(asked string) string {
				if asked == name {
					return text
				}
				return ""
			})
			if (err == nil) != good || err != nil && (!strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("%s=%s: %v", name, text, err)
			}
		}
	}
}
