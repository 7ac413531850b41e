package api

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/push"
)

// guard turns away what a web page in a browser on this host can send: requests
// that come from another origin, and requests to a foreign name that its owner
// points at this host (DNS rebinding). Both checks stand before every route.
func (a *api) guard() func(http.Handler) http.Handler {
	hosts := make(map[string]bool)
	for _, h := range a.Hosts {
		hosts[strings.ToLower(h)] = true
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case !ours(r, hosts):
				a.turnAway(w, r, push.Errorf(push.ForeignHost, "the Host %s is not one of this daemon's: ask it as 127.0.0.1 or localhost, or add the name to S3DAEMON_HOSTS", push.Quote(r.Host)))
			case crossOrigin(r):
				a.turnAway(w, r, push.Errorf(push.CrossOrigin, "a web page of another origin may not use this daemon"))
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
}

// answerHeaders have each answer mean nothing to a page of another origin, and
// nothing but what it is to one that shows it. There is no CORS: none of them
// may ever let another origin read an answer.
var answerHeaders = [][2]string{
	{"X-Content-Type-Options", "nosniff"},
	{"Cache-Control", "no-store"},
	{"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"},
	{"X-Frame-Options", "DENY"},
	{"Referrer-Policy", "no-referrer"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Cross-Origin-Opener-Policy", "same-origin"}, // a page that opens another's window may send it elsewhere later
}

// headers sets those that every answer has. What shows more than text, as the
// page does, replaces the policy by its own.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, h := range answerHeaders {
			w.Header().Set(h[0], h[1])
		}
		next.ServeHTTP(w, r)
	})
}

// endInDoubt has the connection closed behind a request of which another
// program on its way may think that it ends elsewhere: one in chunks, which may
// have had a Content-Length too (net/http does not tell), and one that is not
// HTTP/1.1. What the caller sent behind it is then no request of anybody's.
func endInDoubt(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TransferEncoding != nil || r.ProtoMajor != 1 || r.ProtoMinor != 1 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

var protection = http.NewCrossOriginProtection()

// crossOrigin reports whether a web page of another origin asked. For reading
// too: it could not read the answer, but its images and forms could use up what
// is meant for others. A person may follow a link to what the daemon shows,
// though, as the answer then is a page of its own; one in a frame is not, nor
// is what a page has its browser get in case that somebody follows a link.
func crossOrigin(r *http.Request) bool {
	asked := *r
	asked.Method = http.MethodPost // net/http lets others than those that change something pass
	if protection.Check(&asked) == nil {
		return false
	}
	link := r.Method == http.MethodGet && r.Header.Get("Origin") == "" &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	return !link || speculative(r.Header)
}

// speculative reports whether a browser asks in advance (prefetch, prerender).
func speculative(h http.Header) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} { // the later ones in older browsers
		if h.Get(name) != "" {
			return true
		}
	}
	return false
}

// ours reports whether the request's Host is a loopback name, the address that
// the caller connected to, or a configured name. A Unix socket needs none:
// no browser reaches it. Nor does HTTP/1.0, which no browser speaks; in all that
// came later a Host without a name is a foreign one.
func ours(r *http.Request, configured map[string]bool) bool {
	if overUnix(r) || r.Host == "" && !r.ProtoAtLeast(1, 1) {
		return true
	}
	name := strings.ToLower(hostName(r.Host))
	if name == "localhost" || configured[name] {
		return true
	}
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return addr.IsLoopback() || local != nil && plain(addr) == plain(local.AddrPort().Addr())
}

// plain returns an address without what different ways to write it add.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// hostName returns a Host header without its port and brackets; nothing where it
// is written as no browser writes it.
func hostName(host string) string {
	name, port, err := net.SplitHostPort(host)
	if err != nil { // there is no port
		name = host
		if strings.HasSuffix(host, "]") {
			name = strings.Trim(host, "[]")
		}
	}
	if strings.HasPrefix(host, "[") != strings.Contains(name, ":") || strings.Trim(port, "0123456789") != "" {
		return ""
	}
	return name
}

// recover turns a panic in one request into one 500, with an id that stands in
// the log too. Where an answer has been begun there is no second one: its caller
// sees the connection break.
func (a *api) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			fault := recover()
			if fault == nil {
				return
			}
			if fault == http.ErrAbortHandler {
				panic(fault)
			}
			id := rand.Text()
			a.Log.Error("panic in a request", "id", id, "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
			if begun, ok := w.(*statusRecorder); ok && begun.begun {
				panic(http.ErrAbortHandler)
			}
			a.fail(w, id, push.Errorf(push.Internal, "the daemon failed: its log has the cause under the id %s", id))
		}()
		next.ServeHTTP(w, r)
	})
}

// count counts answers by route and status.
func (a *api) count() func(http.Handler) http.Handler {
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "s3daemon_http_requests_total", Help: "Requests answered, by route (none where there is no such route, or the guard turned it away) and status.",
	}, []string{"route", "status"})
	a.Registry.MustRegister(answers)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
			defer func() { // also where an answer breaks off
				route := "none"
				if pattern := chi.RouteContext(r.Context()).RoutePattern(); pattern != "" {
					route = pattern
				}
				answers.WithLabelValues(route, strconv.Itoa(recorder.status)).Inc()
			}()
			next.ServeHTTP(recorder, r)
		})
	}
}

// statusRecorder remembers the status that was written.
type statusRecorder struct {
	http.ResponseWriter
	status int
	begun  bool // something of the answer may be out
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status, s.begun = status, true
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusRecorder) Write(p []byte) (int, error) {
	s.begun = true
	return s.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find the connection.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }
