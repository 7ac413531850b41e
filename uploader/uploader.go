// Package uploader delivers files to an S3 store. It is the only package that
// knows the AWS SDK.
//
//	up, err := uploader.New(ctx, uploader.Config{Endpoint: "https://s3.example.org", ...})
//	receipt, err := up.Push(ctx, push.Request{File: "/data/a.fits", Destination: "s3://raw/a.fits"})
//	...
//	err = up.Drain(ctx)
//
// The way of a push:
//
//	Push      checks the request and the file, then waits for its turn
//	delivery  one PutObject for a file of one part, else the SDK's manager
//	request   takes a slot, makes an attempt, checks the answer, retries
//	slots     decides who has the next connection
//
// Two limits hold. At most Config.MaxConnections requests are under way with
// the store at once: that is the pool, and slotQueue has the rules of who goes
// next. At most as many small pushes (one part) and as many large ones run at
// once; the others wait without holding a file open. Small and large are
// bounded apart, so that no number of large files keeps a small one from
// starting.
package uploader

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
)

// Config is what an Uploader needs. All fields but Endpoint are required.
type Config struct {
	Endpoint       string        // base URL of the store; empty for Amazon S3
	MaxConnections int           // size of the pool, at least 1
	Attempts       int           // tries of each request, at least 1
	ConnectTimeout time.Duration // for the TCP connection, and again for TLS
	Log            *slog.Logger
	Metrics        prometheus.Registerer
}

// Uploader delivers pushes. Its methods may be called by many goroutines at
// once.
type Uploader struct {
	endpoint string // for messages
	client   *s3.Client
	putter   *putter // nil where the SDK makes all requests
	limit    int     // of the pool
	slots    *slots
	running  [2]chan struct{} // by kind: one token for each push that runs
	plan     plan
	retry    retryPolicy
	log      *slog.Logger
	metrics  *metrics

	stopped context.Context // cancelled when pushes in flight are to be cut off
	stop    context.CancelFunc

	cutOff atomic.Int64 // pushes that failed because the daemon stopped

	mu       sync.Mutex
	draining bool           // guarded by mu
	accepted sync.WaitGroup // pushes accepted and not ended; Add only with mu held and draining false
}

// New makes an Uploader. It fails if the AWS configuration is unusable; it
// does not ask the store, which may be down.
func New(ctx context.Context, cfg Config) (*Uploader, error) {
	client, err := newClient(ctx, cfg)
	if err != nil {
		return nil, err
	}
	u := &Uploader{
		endpoint: endpointName(client.Options()),
		client:   client,
		putter:   newPutter(client.Options()),
		limit:    cfg.MaxConnections,
		slots:    newSlots(cfg.MaxConnections),
		running:  [2]chan struct{}{make(chan struct{}, cfg.MaxConnections), make(chan struct{}, cfg.MaxConnections)},
		plan:     plan{minPart: minPartSize},
		retry:    newRetryPolicy(cfg.Attempts),
		log:      cfg.Log,
	}
	u.metrics = newMetrics(cfg.Metrics, u.slots, cfg.MaxConnections)
	u.stopped, u.stop = context.WithCancel(context.WithoutCancel(ctx))
	return u, nil
}

// Endpoint names the store, for people.
func (u *Uploader) Endpoint() string { return u.endpoint }

func endpointName(o s3.Options) string {
	if o.BaseEndpoint == nil {
		return "Amazon S3 (" + o.Region + ")"
	}
	if parsed, err := url.Parse(*o.BaseEndpoint); err == nil {
		return parsed.Redacted()
	}
	return "the configured endpoint"
}

// Ready returns nil while pushes are accepted, else a *push.Error that says
// why not.
func (u *Uploader) Ready() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.readyLocked()
}

func (u *Uploader) readyLocked() error {
	if u.draining {
		return push.Errorf(push.ShuttingDown, "the daemon is shutting down: push again once it has been started anew")
	}
	return nil
}

// Push delivers one file and returns when the store has it, or the push has
// failed with a *push.Error. The context does not matter: once Push is called,
// a caller who goes away does not cancel it.
//
// A request that names no file or object that could be pushed is refused: the
// receipt is empty. What is accepted has a receipt with an id, whether it is
// delivered or not; where the error is nil its state is Done and the store has
// confirmed the object.
func (u *Uploader) Push(_ context.Context, req push.Request) (push.Receipt, error) {
	if err := u.enter(); err != nil {
		return push.Receipt{}, u.refuse(req, err)
	}
	defer u.accepted.Done()

	d, err := u.accept(req)
	if err != nil {
		return push.Receipt{}, u.refuse(req, err)
	}
	receipt := push.Receipt{
		ID: uuid.Must(uuid.NewV7()).String(), State: push.Queued, File: req.File, Label: req.Label,
		Destination: d.dest.String(), Bucket: d.dest.Bucket, Key: d.dest.Key,
		AcceptedAt: time.Now().UTC(), Size: d.file.Size(), Attempts: 1, Parts: u.plan.parts(d.file.Size()),
	}
	err = u.deliver(d, &receipt)
	receipt.FinishedAt = time.Now().UTC()
	receipt.Seconds = receipt.FinishedAt.Sub(receipt.AcceptedAt).Seconds()
	failure := asPushError(err)
	receipt.State = push.Done
	if failure != nil {
		receipt.State = push.Failed
		if failure.Code == push.ShuttingDown {
			u.cutOff.Add(1)
		}
	}
	u.metrics.ended(receipt, failure)
	u.logEnd(receipt, failure)
	if failure != nil {
		return receipt, failure
	}
	return receipt, nil
}

// accept looks at the request and at the file, and returns the delivery with
// the file open.
func (u *Uploader) accept(req push.Request) (*delivery, error) {
	dest, err := req.Check()
	if err != nil {
		return nil, err
	}
	file, err := source.Open(req.File)
	if err != nil {
		return nil, err
	}
	return &delivery{up: u, req: req, dest: dest, file: file}, nil
}

// deliver takes an accepted push to its end and closes its file. It fills in
// the receipt as it goes.
func (u *Uploader) deliver(d *delivery, receipt *push.Receipt) error {
	leave, err := u.start(d)
	if err != nil {
		return err
	}
	defer leave()
	receipt.State, receipt.StartedAt = push.Running, time.Now().UTC()
	receipt.Size, receipt.Parts = d.file.Size(), u.plan.parts(d.file.Size())

	got, err := d.run(u.stopped)
	receipt.Attempts = max(1, d.attempts)
	if err != nil {
		return err
	}
	receipt.ETag, receipt.VersionID, receipt.Checksum = got.etag, got.versionID, got.checksum
	return nil
}

// start returns once the push may run, with what to call when it has ended. A
// push that has to wait does not hold its file open meanwhile.
func (u *Uploader) start(d *delivery) (leave func(), err error) {
	k := single
	if u.plan.parts(d.file.Size()) > 1 {
		k = part
	}
	select {
	case u.running[k] <- struct{}{}:
	default:
		d.file.Close()
		if err := u.wait(k); err != nil {
			return nil, err
		}
		if d.file, err = source.Open(d.req.File); err != nil {
			<-u.running[k]
			return nil, err
		}
	}
	u.metrics.inFlight.Inc()
	return func() {
		d.file.Close()
		u.metrics.inFlight.Dec()
		<-u.running[k]
	}, nil
}

// wait waits for a place among the pushes of a kind that run.
func (u *Uploader) wait(k kind) error {
	u.metrics.waiting.Inc()
	defer u.metrics.waiting.Dec()
	select {
	case u.running[k] <- struct{}{}:
		return nil
	case <-u.stopped.Done():
		return push.Errorf(push.ShuttingDown, "the daemon was stopped before the push had its turn: push the file again")
	}
}

// enter counts a push among the accepted ones, which Drain waits for.
func (u *Uploader) enter() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.readyLocked(); err != nil {
		return err
	}
	u.accepted.Add(1)
	return nil
}

// Close refuses pushes from now on; those accepted go on.
func (u *Uploader) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.draining = true
}

// cutOffTimeout is for the ends of pushes that are cut off: an abort of each
// upload in parts, and an answer to each caller.
const cutOffTimeout = 3 * time.Second

// Drain refuses new pushes and waits until the accepted ones have ended. When
// the context ends first they are cut off: each fails with ShuttingDown, and
// Drain returns an error that says how many. It does not wait for long for one
// that will not end even then, because the disk that its file is on hangs.
func (u *Uploader) Drain(ctx context.Context) error {
	u.Close()
	defer u.client.Options().HTTPClient.(roundTripper).CloseIdleConnections()
	defer u.stop()
	ended := make(chan struct{})
	go func() {
		u.accepted.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	u.stop()
	select {
	case <-ended:
	case <-time.After(cutOffTimeout):
		return fmt.Errorf("%s cut off, and others have not ended even so", counted(int(u.cutOff.Load()), "push", "pushes"))
	}
	if n := u.cutOff.Load(); n > 0 {
		return fmt.Errorf("%s cut off", counted(int(n), "push", "pushes"))
	}
	return nil
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
