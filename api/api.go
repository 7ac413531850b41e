// Package api is the HTTP interface: it decodes a request, calls the Pusher or
// the Queue, and encodes what comes back. openapi.yaml describes it for callers.
//
//	whole, ops := api.New(api.Config{Pusher: up, Queue: up, Version: "1.0", ...})
//	server := &http.Server{Handler: whole, ReadHeaderTimeout: 10 * time.Second}
//
// Every error leaves as an RFC 9457 problem, through one function (fail). The
// server must have no WriteTimeout and no ReadTimeout, since POST /push answers
// when the store has, the barrier when the queue is empty, and GET /events for as
// long as somebody watches; limitBody bounds how long a body may take, and
// package listen how long an answer may lie.
//
// Who may ask is decided in two steps before every route. Web pages in a browser
// on this host may not: a page can send a form without asking first, and can
// point a name of its own at 127.0.0.1; guard turns both away. Of programs
// authenticate lets in those that Config.Users and Config.Tokens know, and
// everybody where these say nothing.
package api

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/throttle"
)

// Pusher delivers pushes. Its methods are called by many goroutines at once.
type Pusher interface {
	// Push accepts a push, which is on disk before Push returns anything with
	// an id, and waits for its end as the options say. Without an error the
	// push is done, or it is queued or running and the caller does not wait any
	// longer. An error is a *push.Error, and the receipt beside it has an id if
	// the push had been accepted. A context that ends ends the waiting, and
	// cancels nothing that was accepted.
	Push(context.Context, push.Request, push.Options) (push.Receipt, error)
	// Ready returns what whoever runs the daemon should know though pushes are
	// accepted, or a *push.Error where they are not.
	Ready() (notes []string, err error)
}

// Queue tells of pushes and changes them. Its methods are called by many
// goroutines at once. Every error is a *push.Error; a context that ends ends
// the waiting.
type Queue interface {
	// Get returns how a push stands once it has ended, or wait is over.
	Get(ctx context.Context, id push.ID, wait time.Duration) (push.Receipt, error)
	// List returns a page once no push with the filter's label is queued or
	// running, or wait is over.
	List(ctx context.Context, f push.Filter, wait time.Duration) (push.Page, error)
	// Cancel ends a push undelivered. It has ended if the receipt says so; else
	// whether the store has the object is still to be found out.
	Cancel(ctx context.Context, id push.ID) (push.Receipt, error)
	// Retry puts a push that failed or was cancelled back into the queue.
	Retry(ctx context.Context, id push.ID) (push.Receipt, error)
}

// Config is what the interface is made of. All fields but Hosts, Users, Tokens,
// Admit and Callers are required.
type Config struct {
	Pusher  Pusher
	Queue   Queue
	Events  Events
	Version string
	Hosts   []string // names allowed in Host beside loopback ones and the address connected to
	Users   []uint32 // who may ask over a Unix socket (uid; see WithUser); empty: whoever can connect to it
	// Tokens reports whether a token is one of those of which a request over TCP
	// must have one; nil: it needs none.
	Tokens  func(token string) bool
	OpenAPI []byte // the document served at /openapi.yaml
	// Page serves the status page, to whoever reaches the daemon: it must have
	// nothing in it that not everybody may know, and says by its own
	// Content-Security-Policy what it may do.
	Page     http.Handler
	Scrape   http.Handler // serves /metrics
	Registry prometheus.Registerer
	// Admit is asked with the context of each request, once it has been read
	// whole, whether it may be served. Health and metrics are served in any
	// case. Without it, all are.
	Admit func(context.Context) bool
	// Callers is how many are admitted at once, of whom some may wait for the
	// end of a push; 0: any number.
	Callers int
	Log     *slog.Logger
}

type api struct {
	Config
	started         time.Time
	refused         throttle.Lines
	pages, searches *pages
	waits           *waits
	bodies          *budget
}

// New returns the handler of the whole interface, and one that has health and
// metrics alone, for whoever can reach it, under any name.
func New(cfg Config) (whole, ops http.Handler) {
	whole, ops = newAPI(cfg).routers()
	return whole, ops
}

func newAPI(cfg Config) *api {
	if cfg.Admit == nil {
		cfg.Admit = everybody
	}
	return &api{
		Config: cfg, started: time.Now(), pages: newPages(mostPages), searches: newPages(mostSearches),
		waits: newWaits(cfg.Callers, cfg.Registry), bodies: &budget{left: largeBodies},
	}
}

func (a *api) routers() (whole, ops chi.Router) {
	count := a.count()

	whole = chi.NewRouter()
	whole.Use(count, a.recover, endInDoubt, limitBody, headers, a.guard(), a.authenticate, middleware.GetHead)
	a.routeHealth(whole)
	whole.With(a.readWhole, a.admit).Post("/push", a.push)
	whole.Group(func(r chi.Router) {
		r.Use(a.readAway, a.admit)
		r.Get("/pushes", a.list)
		r.Get("/pushes/{id}", a.get)
		r.Delete("/pushes/{id}", a.cancel)
		r.Post("/pushes/{id}/retry", a.retry)
		r.Get("/events", a.events)
		r.Get("/openapi.yaml", a.openapi)
		r.Get(pagePath, a.page)
	})

	ops = chi.NewRouter()
	ops.Use(count, a.recover, endInDoubt, limitBody, headers, middleware.GetHead)
	a.routeHealth(ops)

	for _, r := range []chi.Router{whole, ops} {
		r.NotFound(a.notFound)
		r.MethodNotAllowed(a.methodNotAllowed)
	}
	return whole, ops
}

// routeHealth has the routes that are served whoever asks, and however many do.
func (a *api) routeHealth(r chi.Router) {
	r.Get("/healthz", a.healthz)
	r.Get("/readyz", a.readyz)
	r.Get("/metrics", a.Scrape.ServeHTTP)
}

func (a *api) push(w http.ResponseWriter, r *http.Request) {
	req, opts, applied, err := decodePush(w, r)
	if err != nil {
		a.refuse(w, err)
		return
	}
	_ = r.Body.Close() // it would be kept for as long as the push takes
	if opts.Wait != 0 {
		switch {
		case a.waits.enter(false):
			defer a.waits.leave(false)
		case opts.Wait > 0: // which a 202 answers as well
			opts.Wait, applied = 0, ""
		default:
			a.fail(w, "", tooMany("as many callers wait for pushes as may: ask again in a moment, or do not wait (Prefer: respond-async)"))
			return
		}
	}
	receipt, err := a.Pusher.Push(r.Context(), req, opts)
	if receipt.ID != "" { // accepted: what the caller preferred was heeded
		locate(w, receipt.ID)
		if applied != "" {
			w.Header().Set("Preference-Applied", applied)
		}
	}
	switch {
	case err != nil:
		a.fail(w, receipt.ID, err)
	case receipt.State == push.Done:
		replyReceipt(w, http.StatusOK, receipt)
	case !receipt.State.Ended():
		replyReceipt(w, http.StatusAccepted, receipt)
	default: // cannot be: what ended otherwise comes with an error, and 200 means done
		a.fail(w, receipt.ID, fmt.Errorf("a push ended as %s without an error", receipt.State))
	}
}

// health is the answer of /healthz and /readyz.
type health struct {
	Status        string   `json:"status"`
	Version       string   `json:"version"`
	UptimeSeconds float64  `json:"uptime_seconds"`
	Notes         []string `json:"notes,omitempty"` // of /readyz only
}

func (a *api) healthz(w http.ResponseWriter, _ *http.Request) { a.healthy(w, nil) }

func (a *api) readyz(w http.ResponseWriter, _ *http.Request) {
	notes, err := a.Pusher.Ready()
	if err != nil {
		a.fail(w, "", err)
		return
	}
	a.healthy(w, notes)
}

func (a *api) healthy(w http.ResponseWriter, notes []string) {
	reply(w, http.StatusOK, health{"ok", a.Version, time.Since(a.started).Seconds(), notes})
}

func (a *api) openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(a.OpenAPI)
}

// page serves the status page. The router takes a target that has no path for it
// too, such as localhost:80, which is nobody's address.
func (a *api) page(w http.ResponseWriter, r *http.Request) {
	if r.URL.Opaque != "" {
		a.notFound(w, r)
		return
	}
	a.Page.ServeHTTP(w, r)
}

func (a *api) notFound(w http.ResponseWriter, r *http.Request) {
	a.fail(w, "", push.Errorf(push.NotFound, "there is nothing at %s: GET /openapi.yaml lists what there is", push.Quote(r.URL.Path)))
}

func (a *api) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	routes := chi.RouteContext(r.Context()).Routes
	path := r.URL.Path
	if r.URL.RawPath != "" { // what chi routes on, where the two differ
		path = r.URL.RawPath
	}
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		if routes.Match(chi.NewRouteContext(), method, path) {
			allowed = append(allowed, method)
			if method == http.MethodGet {
				allowed = append(allowed, http.MethodHead) // middleware.GetHead
			}
		}
	}
	if len(allowed) == 0 { // OPTIONS *, or another protocol's preface
		a.notFound(w, r)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	a.fail(w, "", push.Errorf(push.MethodNotAllowed, "%s does not take %s: use %s", push.Quote(r.URL.Path), push.Quote(r.Method), strings.Join(allowed, " or ")))
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
