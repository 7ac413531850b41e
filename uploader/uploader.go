// Package uploader delivers files to an S3 store. It is the only package that
// knows the AWS SDK.
//
//	up, err := uploader.New(ctx, uploader.Config{Endpoint: "https://s3.example.org", Journal: j, ...})
//	receipt, err := up.Push(ctx, push.Request{File: "/data/a.fits", Destination: "s3://raw/a.fits"}, push.Options{Wait: push.Forever})
//	...
//	err = up.Drain(ctx)
//
// The way of a push, whether a caller has just brought it or it was found in
// the journal at the start:
//
//	Push      checks the request and the file, and has the push put on disk
//	queue     decides whose turn it is
//	work      a worker runs it, once: run, settle
//	delivery  one PutObject for a file of one part, else the SDK's manager
//	request   takes a slot, makes an attempt, checks the answer
//	slots     decides who has the next connection
//	settle    its end is put on disk (finish, ended), or it goes back to the
//	          queue until its next attempt (again), or, when the daemon stops,
//	          it stays in the journal (leave)
//
// Its states on disk are the journal's two: queued, and ended as done, failed
// or cancelled. That it runs is known in memory alone; after a crash it is
// queued as before.
//
// Two limits hold. At most Config.MaxConnections requests are under way with
// the store at once: that is the pool, and slotQueue has the rules of who goes
// next. At most as many small pushes (one part) and as many large ones run at
// once; the others wait without holding a file open.
//
// What is asked of a store that is away is decided in two places: endpoint, for
// one that no connection can be made to, and trial, for a bucket that fails.
//
// Multipart uploads that no push goes on with are the janitor's.
package uploader

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
	"github.com/lsst-dm/s3daemon/throttle"
	"github.com/lsst-dm/s3daemon/transport"
)

// Config is what an Uploader needs. All fields are required but Endpoint,
// Places, SyncFiles, RetryChanged, DrainQueue, Checksum, Congestion, Bandwidth,
// Warmup, Keys, Deadline, Ended and Refused.
type Config struct {
	Endpoint       string               // base URL of the store; empty for Amazon S3
	Places         push.Places          // that pushes may go to; the warm-up is the operator's, and goes anywhere
	MaxConnections int                  // size of the pool, at least 1
	Attempts       int                  // of a push while somebody waits for it, at least 1
	GiveUpAfter    time.Duration        // how old a push becomes that nobody waits for
	ConnectTimeout time.Duration        // for the TCP connection, and again for TLS
	StallTimeout   time.Duration        // how long the store may acknowledge nothing of what is under way to it
	Congestion     string               // name of TCP's congestion control; auto where empty
	Bandwidth      *transport.Bandwidth // what is sent at most; nil: no limit
	Warmup         push.Destination     // where the connections are warmed; zero: nowhere
	QueueLimit     int                  // pushes that may be queued or running, at least 1
	Roots          []string             // directories, clean absolute paths, beneath which files are read; empty: anywhere
	Guarded        []string             // files and directories, absolute paths, that are never read, beside those that have the credentials
	SyncFiles      bool                 // have each file put on disk before its push is accepted
	RetryChanged   bool                 // a file that changed is sent once it has settled; else its push fails
	DrainQueue     bool                 // Drain delivers what is queued too
	Checksum       Checksum             // what shows that the store has the bytes; auto where empty
	Keys           Keys                 // to sign with; where none is in a file, the SDK finds them
	Deadline       time.Duration        // a push that is done later than that after its acceptance counts as late; 0: none does
	Ended          func(push.Receipt)   // called once for each accepted push that has ended, when that is on disk; at any time, even before New returns, and by several goroutines: it must be quick
	Refused        func(push.Code)      // called for each request to push that was not accepted, with why; by several goroutines: it must be quick
	Journal        *journal.Journal
	Log            *slog.Logger
	Metrics        prometheus.Registerer
}

// Uploader delivers pushes. Its methods may be called by many goroutines at
// once.
type Uploader struct {
	name         string // of the store, for messages
	endpoint     *endpoint
	client       *s3.Client
	credentials  *credentials
	wire         *transport.Transport // the pool of connections
	asker        *transport.Transport // for questions whether the store is there
	putter       *putter              // nil where the SDK makes all requests
	base         *url.URL             // that all requests go to; nil with Amazon, where each bucket has its own
	places       push.Places
	limit        int // of the pool
	slots        *slots
	plan         plan
	path         func(bucket string) transport.Path
	bandwidth    *transport.Bandwidth // nil: no limit
	warmup       push.Destination
	retry        retryPolicy
	queueLimit   int
	files        *source.Opener
	syncFiles    bool
	retryChanged bool
	drainQueue   bool
	checksum     Checksum
	verifies     verifies
	conditions   *conditions
	journal      *journal.Journal
	janitor      *janitor
	log          *slog.Logger
	refusals     throttle.Lines // of pushes that are not accepted
	metrics      *metrics
	takes        takes
	tellEnd      func(push.Receipt)
	tellRefusal  func(push.Code)
	seed         maphash.Seed

	stopped  context.Context // cancelled when what runs is to be cut off
	stop     context.CancelFunc
	leaving  chan struct{}             // closed when callers are not to wait any longer
	cutOffAt atomic.Pointer[time.Time] // when what runs will be cut off; nil: not before Drain
	cooled   chan struct{}             // has one element when connections may have been lost that were warm
	warm     atomic.Bool               // a warm-up has ended well since
	unlisted sync.Once                 // has told that the store does not list the parts of uploads
	asking   chan struct{}             // one element for each push that is being asked about
	workers  sync.WaitGroup            // Add in New only

	mu          sync.Mutex // guards all below
	turn        [2]*sync.Cond
	queue       queue
	live        map[push.ID]*entry // those with a task
	labels      map[string]*label
	lately      map[uint64]time.Time // objects of parts that were made a moment ago, and when
	puttingBack map[uint64]bool      // objects with a push that is being put back: whether a newer one came meanwhile
	rate        rate
	timer       *time.Timer
	entering    int                     // pushes that are being accepted
	kept        int                     // files that are open for pushes that have not begun to run
	ending      int                     // pushes whose end is being put on disk
	warming     context.CancelCauseFunc // ends the warm-up; nil while there is none
	draining    bool
	left        bool          // nothing starts any more
	closed      bool          // workers end
	idle        chan struct{} // closed when there is nothing to wait for; nil before Drain
}

// New makes an Uploader and takes up the pushes that the journal has. It fails
// if the AWS configuration is unusable or the journal cannot be read; it does
// not ask the store, which may be down.
func New(ctx context.Context, cfg Config) (*Uploader, error) {
	u, err := newUploader(ctx, cfg)
	if err == nil {
		u.start()
	}
	return u, err
}

// newUploader makes an Uploader that has not begun to work.
func newUploader(ctx context.Context, cfg Config) (*Uploader, error) {
	u := &Uploader{
		places: cfg.Places, limit: cfg.MaxConnections, slots: newSlots(cfg.MaxConnections), plan: plan{whole: wholeSize, minPart: minPartSize, split: leastPart},
		retry: newRetryPolicy(cfg.Attempts, cfg.GiveUpAfter), queueLimit: cfg.QueueLimit, syncFiles: cfg.SyncFiles, retryChanged: cfg.RetryChanged, drainQueue: cfg.DrainQueue,
		bandwidth: cfg.Bandwidth, warmup: cfg.Warmup, checksum: cfg.Checksum, conditions: newConditions(cfg.MaxConnections), tellEnd: cfg.Ended, tellRefusal: cfg.Refused,
		journal: cfg.Journal, log: cfg.Log, seed: maphash.MakeSeed(), leaving: make(chan struct{}), cooled: make(chan struct{}, 1), asking: make(chan struct{}, mostAsking),
		queue: newQueue(cfg.MaxConnections), live: make(map[push.ID]*entry), labels: make(map[string]*label), puttingBack: make(map[uint64]bool), lately: make(map[uint64]time.Time),
	}
	u.queue.jitter = u.retry.jitter
	if u.tellEnd == nil {
		u.tellEnd = func(push.Receipt) {}
	}
	if u.tellRefusal == nil {
		u.tellRefusal = func(push.Code) {}
	}
	u.stopped, u.stop = context.WithCancel(context.WithoutCancel(ctx))
	dialer := transport.NewDialer(transport.DialConfig{ConnectTimeout: cfg.ConnectTimeout, StallTimeout: cfg.StallTimeout, Congestion: cfg.Congestion, Bandwidth: cfg.Bandwidth})
	u.endpoint = newEndpoint(u.stopped, dialer.Dial, u.askStore)
	u.endpoint.changed = u.endpointChanged
	made, err := newClient(ctx, cfg, dialer, u.endpoint.dial)
	if err != nil {
		u.stop()
		return nil, err
	}
	options := made.s3.Options()
	u.name, u.client, u.wire, u.asker, u.putter = endpointName(options), made.s3, made.wire, made.asker, newPutter(options, made.base)
	u.base, u.endpoint.hosts = made.base, made.base == nil
	u.credentials = made.credentials
	u.credentials.came = u.credentialsCame
	u.files = source.New(source.Rules{Roots: cfg.Roots, Guarded: slices.Concat(cfg.Guarded, u.credentials.files())})
	u.credentials.from = func(files []string) { u.files.Guard(files...) }
	u.path = u.pathTo
	if u.warmup != (push.Destination{}) {
		if err := u.checkBucket(u.warmup); err != nil {
			u.stop()
			return nil, fmt.Errorf("S3DAEMON_WARMUP: %w", err)
		}
	}
	u.metrics = newMetrics(cfg.Metrics, u, cfg.MaxConnections, cfg.Deadline)
	cfg.Metrics.MustRegister(connectionCollector{u.wire, dialer.TCP(), cfg.Bandwidth})
	logTCP(u.log, cfg.Congestion, dialer.TCP())
	u.janitor = newJanitor(u)
	for k := range u.turn {
		u.turn[k] = sync.NewCond(&u.mu)
	}
	if err := u.takeUp(); err != nil {
		u.stop()
		return nil, err
	}
	return u, nil
}

// start begins to work. The connections are opened where all requests go to one
// host: with Amazon each bucket has its own.
func (u *Uploader) start() {
	if u.base != nil {
		u.wire.Keep(u.base)
		proxy, _ := transport.ProxyTo(u.base) // where that fails no request is made
		u.workers.Go(func() { warnOfCleartext(u.stopped, u.log, u.base, proxy, net.DefaultResolver.LookupNetIP) })
	}
	for range u.limit {
		u.workers.Go(func() { u.work(single) })
		u.workers.Go(func() { u.work(part) })
	}
	u.workers.Go(u.janitor.run)
	if u.warmup != (push.Destination{}) {
		u.workers.Go(u.keepWarm)
	}
}

// takeUp puts the pushes that an earlier process left into the queue.
func (u *Uploader) takeUp() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	begun := time.Now()
	var putBack []*journal.Record
	err := u.journal.Queued(func(r *journal.Record) error {
		dest, err := push.ParseDestination(r.Request.Destination)
		if err != nil {
			return fmt.Errorf("push %s: %w", r.ID, err)
		}
		e := u.entryOf(r, dest)
		e.maybe = true             // who knows how far it was
		e.since = begun.UnixNano() // nothing was attempted while nobody ran
		u.enqueueLocked(e, r.Request.Label, dest.Bucket)
		if !r.RetriedAt.IsZero() {
			putBack = append(putBack, r)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take up the pushes in the journal: %w", err)
	}
	for _, r := range putBack {
		if err := u.checkPutBackLocked(r); err != nil {
			return err
		}
	}
	if u.queue.size > 0 {
		u.log.Info("pushes of an earlier run are taken up", "pushes", u.queue.size, "seconds", time.Since(begun).Seconds())
	}
	return nil
}

// Endpoint names the store, for people.
func (u *Uploader) Endpoint() string { return u.name }

func endpointName(o s3.Options) string {
	if o.BaseEndpoint == nil {
		return "Amazon S3 (" + o.Region + ")"
	}
	if parsed, err := url.Parse(*o.BaseEndpoint); err == nil {
		return parsed.Redacted()
	}
	return "the configured endpoint"
}

// endpointChanged stops and starts the queue with the endpoint.
func (u *Uploader) endpointChanged() {
	u.mu.Lock()
	defer u.mu.Unlock()
	since, cause, down := u.endpoint.down() // asked for here, so that the last change is what counts
	if down {
		u.warm.Store(false)
		u.wire.Rest() // whatever was open died with the way to the store
	}
	switch {
	case u.left:
	case down:
		u.log.Warn("the store cannot be reached: pushes wait, and it is asked once a second", "store", u.name, "error", textOf(cause))
		u.queue.paused = true
		u.armLocked(since)
	case u.queue.paused:
		u.log.Info("the store can be reached again", "store", u.name, "pushes", u.queue.size)
		u.wire.Wake()
		u.queue.resume()
		u.wakeLocked()
		u.cool()
	}
}

// credentialsCame has what waits for another try have it at once: there are
// credentials again, or the store takes them.
func (u *Uploader) credentialsCame() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.left {
		return
	}
	u.queue.hasten(func(*entry) bool { return true })
	u.wakeLocked()
}

// askPatience is how long the store may take over a question, beside the time
// for connecting.
const askPatience = 5 * time.Second

var errUntaken = fmt.Errorf("no connection could be had within %v", askPatience)

// askStore asks whether anything answers where the store is. It fails with errSilent if the question went
// out, and nothing came back.
func (u *Uploader) askStore(ctx context.Context) error {
	ctx, done := context.WithTimeoutCause(ctx, askPatience, errUntaken)
	defer done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(info httptrace.WroteRequestInfo) {
		if info.Err == nil {
			time.AfterFunc(silentFor, func() { cancel(errSilent) })
		}
	}})
	store, err := u.hostOf("")
	if err != nil {
		return err
	}
	req, err := question(ctx, store)
	if err != nil {
		return err
	}
	resp, err := u.asker.Do(req)
	if err != nil {
		if ctx.Err() != nil { // whose cause says more
			err = context.Cause(ctx)
		}
		return err
	}
	return resp.Body.Close()
}

// hostOf returns where requests about a bucket go; without one, those about the
// store.
func (u *Uploader) hostOf(bucket string) (*url.URL, error) {
	if u.base != nil {
		return u.base, nil
	}
	o := u.client.Options()
	where := s3.EndpointParameters{Region: &o.Region, Endpoint: o.BaseEndpoint}
	if bucket != "" {
		where.Bucket = &bucket
	}
	found, err := o.EndpointResolverV2.ResolveEndpoint(context.Background(), where)
	return &found.URI, err
}

// pathTo returns what is known of the way to a bucket.
func (u *Uploader) pathTo(bucket string) transport.Path {
	host, err := u.hostOf(bucket)
	if err != nil { // the requests have it too
		return transport.Path{}
	}
	return u.wire.Path(host)
}

// firstReach is how long a file may wait for what it needs anyway, a connection, to be
// cut by what that tells of the way.
const firstReach = 2 * time.Second

// reach waits until something is known of the way to a bucket.
func (u *Uploader) reach(ctx context.Context, bucket string) {
	ctx, done := context.WithTimeout(ctx, firstReach)
	defer done()
	if host, err := u.hostOf(bucket); err == nil {
		u.wire.Reach(ctx, host)
	}
}

// question is a request to which any answer will do.
func question(ctx context.Context, store *url.URL) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, http.MethodHead, store.String(), nil)
}

// wakeLocked wakes a worker of each kind that has something to start; each
// wakes the next.
func (u *Uploader) wakeLocked() {
	for k := range u.turn {
		if u.queue.mayStart(kind(k)) {
			u.turn[k].Signal()
		}
	}
}

// asPushError returns err as a *push.Error; one that nobody explained is a
// fault of ours.
func asPushError(err error) *push.Error {
	var known *push.Error
	if err == nil || errors.As(err, &known) {
		return known
	}
	return &push.Error{Code: push.Internal, Detail: "the daemon failed in a way nobody foresaw: its log has the cause", Err: err}
}
