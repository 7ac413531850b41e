// Package api is the HTTP interface: it decodes a request, calls the Pusher,
// and encodes what comes back. openapi.yaml describes it for callers.
//
//	handler := api.New(api.Config{Pusher: up, Version: "1.0", ...})
//	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
//
// Every error leaves as an RFC 9457 problem, through one function (fail). The
// server must have no WriteTimeout and no ReadTimeout, since POST /push answers
// when the store has; limitBody bounds how long a body may take.
//
// Programs on the same host are trusted, web pages in a browser on it are not.
// A page can send a form without asking first, and can point a name of its own
// at 127.0.0.1; guard turns both away.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/push"
)

// Pusher delivers pushes. Push returns when the store has confirmed the object,
// and otherwise fails with a *push.Error; a context that ends does not cancel
// what was accepted. Ready returns nil while pushes are accepted, else a
// *push.Error. Both are called by many goroutines at once.
type Pusher interface {
	Push(context.Context, push.Request) (push.Receipt, error)
	Ready() error
}

// Config is what the interface is made of. All fields but Hosts are required.
type Config struct {
	Pusher   Pusher
	Version  string
	Hosts    []string     // names allowed in Host beside loopback ones and the address connected to
	OpenAPI  []byte       // the document served at /openapi.yaml
	Scrape   http.Handler // serves /metrics
	Registry prometheus.Registerer
	Log      *slog.Logger
}

type api struct {
	Config
	started time.Time
}

// New returns the handler of the whole interface.
func New(cfg Config) http.Handler { return newRouter(cfg) }

func newRouter(cfg Config) chi.Router {
	a := &api{Config: cfg, started: time.Now()}
	r := chi.NewRouter()
	r.Use(a.count(), a.recover, limitBody, a.guard(), middleware.GetHead)

	r.Post("/push", a.push)
	r.Get("/healthz", a.healthz)
	r.Get("/readyz", a.readyz)
	r.Get("/metrics", a.Scrape.ServeHTTP)
	r.Get("/openapi.yaml", a.openapi)

	r.NotFound(a.notFound)
	r.MethodNotAllowed(a.methodNotAllowed)
	return r
}

func (a *api) push(w http.ResponseWriter, r *http.Request) {
	req, err := decodePush(w, r)
	if err != nil {
		a.Log.Warn("request not understood", "error", err.Error())
		a.fail(w, "", err)
		return
	}
	receipt, err := a.Pusher.Push(r.Context(), req)
	if err != nil {
		a.fail(w, receipt.ID, err)
		return
	}
	reply(w, http.StatusOK, receipt)
}

// health is the answer of /healthz and /readyz.
type health struct {
	Status        string  `json:"status"`
	Version       string  `json:"version"`
	UptimeSeconds float64 `json:"uptime_seconds"`
}

func (a *api) healthz(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, health{"ok", a.Version, time.Since(a.started).Seconds()})
}

func (a *api) readyz(w http.ResponseWriter, r *http.Request) {
	if err := a.Pusher.Ready(); err != nil {
		a.fail(w, "", err)
		return
	}
	a.healthz(w, r)
}

func (a *api) openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(a.OpenAPI)
}

func (a *api) notFound(w http.ResponseWriter, r *http.Request) {
	a.fail(w, "", push.Errorf(push.NotFound, "there is nothing at %s: GET /openapi.yaml lists what there is", push.Quote(r.URL.Path)))
}

func (a *api) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	routes := chi.RouteContext(r.Context()).Routes
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
			w.Header().Add("Allow", method)
		}
	}
	if len(w.Header()["Allow"]) == 0 { // OPTIONS *, or another protocol's preface
		a.notFound(w, r)
		return
	}
	a.fail(w, "", push.Errorf(push.MethodNotAllowed, "%s does not take %s: use %s", r.URL.Path, push.Quote(r.Method), w.Header().Get("Allow")))
}

// reply writes v as one line of JSON.
func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	write(w, status, v)
}

func write(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // what can fail is a caller who hung up, who cannot be told
}
