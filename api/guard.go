package api

import (
	"crypto/rand"
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
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, "", push.Errorf(push.CrossOrigin, "a web page of another origin may not use this daemon"))
	}))
	return func(next http.Handler) http.Handler {
		inner := origin.Handler(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Cache-Control", "no-store")
			if !ours(r, hosts) {
				a.fail(w, "", push.Errorf(push.ForeignHost, "the Host %s is not one of this daemon's: ask it as 127.0.0.1 or localhost, or add the name to S3DAEMON_HOSTS", push.Quote(r.Host)))
				return
			}
			inner.ServeHTTP(w, r)
		})
	}
}

// ours reports whether the request's Host is a loopback name, the address that
// the caller connected to, or a configured name. A Unix socket needs none:
// no browser reaches it. Nor does a request without a Host, which only
// HTTP/1.0 allows and no browser sends.
func ours(r *http.Request, configured map[string]bool) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if r.Host == "" || local != nil && local.Network() == "unix" {
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
	tcp, _ := local.(*net.TCPAddr)
	return addr.IsLoopback() || tcp != nil && addr.Unmap() == tcp.AddrPort().Addr().Unmap()
}

// hostName returns a Host header without its port and brackets.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// recover turns a panic in one request into one 500, with an id that stands in
// the log too.
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
			a.Log.Error("panic in a request", "id", id, "method", r.Method, "path", r.URL.Path, "panic", fault, "stack", string(debug.Stack()))
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
			next.ServeHTTP(recorder, r)
			route := "none"
			if pattern := chi.RouteContext(r.Context()).RoutePattern(); pattern != "" {
				route = pattern
			}
			answers.WithLabelValues(route, strconv.Itoa(recorder.status)).Inc()
		})
	}
}

// statusRecorder remembers the status that was written.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find the connection.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }
