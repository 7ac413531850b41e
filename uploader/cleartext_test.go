package uploader

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestWarnOfCleartext(t *testing.T) {
	names := map[string][]string{
		"store.example":           {"203.0.113.7"},
		"mixed.example":           {"10.0.0.1", "2001:db8::1"},
		"inside.example":          {"10.0.0.1", "fd00::1", "192.168.3.4", "172.31.0.1"},
		"rgw.ceph.svc":            {"10.96.0.12"},
		"store.public.internal":   {"203.0.113.7"},
		"single":                  {"203.0.113.7"},
		"tail.example":            {"100.101.102.103"},
		"store.svc.cluster.local": {"10.96.0.13"},
	}
	lookup := func(_ context.Context, _, host string) ([]netip.Addr, error) {
		var found []netip.Addr
		for _, a := range names[host] {
			found = append(found, netip.MustParseAddr(a))
		}
		if found == nil {
			return nil, errors.New("no such host")
		}
		return found, nil
	}
	for store, says := range map[string]string{
		"https://store.example": "", "https://203.0.113.7": "",
		"http://127.0.0.1:9000": "", "http://[::1]:9000": "", "http://localhost": "", "http://LOCALHOST.:80": "", "http://127.8.9.10": "",
		"http://10.1.2.3": "", "http://192.168.0.1": "", "http://172.16.0.1": "", "http://[fd12::1]": "", "http://[fe80::1%25eth0]": "", "http://169.254.1.1": "",
		"http://100.64.0.1": "", "http://[::ffff:10.0.0.1]": "", "http://0.0.0.0:9000": "",
		"http://172.32.0.1": "use https", "http://100.128.0.1": "use https", "http://8.8.8.8": "use https", "http://[2001:db8::1]:9000": "use https", "http://[::ffff:8.8.8.8]": "use https",
		"http://inside.example": "", "http://rgw.ceph.svc:8080": "", "http://store.svc.cluster.local": "", "http://tail.example": "",
		"http://store.example": "203.0.113.7", "http://mixed.example": "2001:db8::1", "http://single": "203.0.113.7", "http://store.public.internal": "203.0.113.7",
		"http://nowhere.example": "not found", "http://elsewhere": "", "http://elsewhere.svc": "", "http://elsewhere.local.": "",
		"http://2130706433": "", // a name, as the dialer has it, and none that a name service has
	} {
		u, err := url.Parse(store)
		if err != nil {
			t.Fatal(err)
		}
		var out lockedBuffer
		warnOfCleartext(t.Context(), slog.New(slog.NewTextHandler(&out, nil)), u, nil, lookup)
		switch got := out.String(); {
		case says == "" && got != "", says != "" && (!strings.Contains(got, says) || !strings.Contains(got, "WARN") || strings.Count(got, "\n") != 1):
			t.Errorf("%s: the log has %q, want %q", store, got, says)
		}
	}
}

// TestWarnOfProxy: what goes to a private store by way of a proxy elsewhere leaves the
// private network.
func TestWarnOfProxy(t *testing.T) {
	look := func(context.Context, string, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	for _, tc := range []struct {
		store, proxy string
		warns        bool
	}{
		{"http://10.0.0.1", "http://user:hunter2@203.0.113.7:3128", true},
		{"http://10.0.0.1", "socks5://203.0.113.7:1080", true},
		{"http://10.0.0.1", "http://proxy.example:3128", true},
		{"http://203.0.113.8", "http://10.0.0.2:3128", true},
		{"http://203.0.113.8", "https://203.0.113.7:3128", true},
		{"http://10.0.0.1", "http://10.0.0.2:3128", false},
		{"http://10.0.0.1", "http://proxy:3128", false},
		{"http://10.0.0.1", "https://203.0.113.7:3128", false},
		{"https://10.0.0.1", "http://203.0.113.7:3128", false},
	} {
		store, err := url.Parse(tc.store)
		if err != nil {
			t.Fatal(err)
		}
		proxy, err := url.Parse(tc.proxy)
		if err != nil {
			t.Fatal(err)
		}
		var out lockedBuffer
		warnOfCleartext(t.Context(), slog.New(slog.NewTextHandler(&out, nil)), store, proxy, look)
		if text := out.String(); strings.Contains(text, "use https") != tc.warns || strings.Contains(text, "hunter2") {
			t.Errorf("%s by %s: the log has %q", tc.store, tc.proxy, text)
		}
	}
}
