package uploader

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/secret"
	"github.com/lsst-dm/s3daemon/source"
	"github.com/lsst-dm/s3daemon/transport"
)

// delivery carries one file to its object, in one run of its push. It is the
// manager.UploadAPIClient of that run: whatever the manager asks of the store
// passes through its methods, and so through request, where a slot is taken,
// the answer checked and a failed attempt made again.
type delivery struct {
	up   *Uploader
	id   push.ID // of the push
	req  push.Request
	dest push.Destination
	file *source.File
	turn turn
	sent sent

	clock       *clock          // of the push; nil where it is none's
	traceparent string          // of the push; empty where it has none
	failed      *failedAttempts // of the push; nil where it is none's

	outlook    outlook         // when the run began, of a file that has the choice
	enough     float64         // see transport.Exchange
	partSize   int64           // that the file is cut by; 0: as the plan has it
	upload     *journal.Upload // that the parts are sent to; nil before there is one
	begunAt    time.Time       // of the newest upload of the push
	madeBefore time.Time       // when the last push to the object ended as done, if that was a moment ago
	recordedAt time.Time       // when what the store is asked for next was recorded
	orphans    bool            // it has taken the place of others
	useless    time.Time       // when the upload was begun that cannot be completed; zero: none is known to be so
	doubt      doubt
	pacer      *pacer

	retriedAt time.Time // when the push was put back last, as its record has it
	begun     bool      // an earlier run may have left an upload, of however small a file

	before       int       // attempts at the push that were made in earlier runs
	unclearSince time.Time // when the first PutObject began of which it is not known whether it made the object; zero: there was none
	stored       bool      // the store said that it has the object
	maybe        bool      // an attempt ended so that the store may have the object
	unclear      bool      // that was the completion of an upload
	maybeBefore  bool      // an attempt of an earlier run ended so that the store may have the object

	got        outcome // once it is stored, and that was shown
	mismatches atomic.Int32

	mu          sync.Mutex // guards all below
	attempts    int        // the most that one request needed
	askedInVain int        // questions for the object that were not answered
	parts       []sentPart // by their number less one, zero until the store has them; free to read once all have been sent
}

// outcome is what a delivered object is known by.
type outcome struct {
	etag, versionID string
	parts           int // requests that carried the bytes, where they were not as many as planned; else 0
	checksum        *push.Checksum
	verified        *push.Verified
	over            *journal.Upload // that made it, and is no more; nil where none is known
	orphans         bool            // others were begun for it that are there still
}

// hasTheChoice is the size of file, in bytes, from which on it matters which
// connection has it.
const hasTheChoice = 256 << 10

// run delivers the file. When it returns without an error the store's answers
// have shown that it has exactly the file's bytes, and the file had not changed
// up to then.
func (d *delivery) run(ctx context.Context) (outcome, error) {
	if d.file.Size() > hasTheChoice {
		if split := d.up.plan.split; split > 0 && d.file.Size() >= 2*split {
			d.up.reach(ctx, d.dest.Bucket)
		}
		d.outlook = d.up.outlook(d.dest.Bucket)
		d.enough = d.outlook.apiece(1)
	}
	send := d.inParts
	switch {
	case d.req.CreateOnly():
		send = d.create
	case !d.begun && d.cut() == 0:
		send = d.whole
	}
	got, err := send(ctx)
	// A file that changed explains any failure, and spoils any success. Where the
	// run was ended that takes a second more at most, though the file hangs.
	if changed := d.file.Check(ctx); changed != nil {
		return outcome{}, changed
	}
	return got, err
}

// cut returns the size of the parts in which a file goes of which none was sent; 0
// where it goes as a whole. One that could go so does where an object may be there
// that must not be replaced, since some stores see to that for PutObject only; where
// it has tags, which Ceph RGW keeps of those alone; and where an earlier PutObject may
// have made the object.
func (d *delivery) cut() int64 {
	size := d.file.Size()
	switch {
	case size > d.up.plan.whole:
		return d.up.plan.partSize(size)
	case d.req.CreateOnly(), len(d.req.Tags) > 0, !d.unclearSince.IsZero():
		return 0
	}
	return d.up.plan.cut(size, d.outlook)
}

// whole sends the file by one request, unless an earlier one made the object.
func (d *delivery) whole(ctx context.Context) (outcome, error) {
	made, err := d.wasMade(ctx)
	if err == nil && !made {
		_, err = d.PutObject(ctx, d.input(ctx))
		made = err == nil
		if !made && d.wasLast() {
			made, _ = d.wasMade(ctx)
		}
	}
	if !made {
		return outcome{}, err
	}
	d.got.parts = 1
	return d.got, nil
}

// wasLast reports whether a caller who waits has no further attempt, so that no
// later one will ask what became of this. There is no use in that where a question
// has just failed.
func (d *delivery) wasLast() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.before+d.attempts >= d.up.retry.attempts && d.askedInVain == 0
}

// newOutcome describes an object by what the store said of it and by the
// CRC64NVME of the file.
func newOutcome(etag, version *string, crc uint64) outcome {
	o := outcome{
		etag: secret.Blot(bareETag(aws.ToString(etag))), versionID: secret.Blot(aws.ToString(version)),
		checksum: &push.Checksum{Algorithm: "crc64nvme", Value: crcText(crc)},
	}
	if version != nil && *version == "null" { // what S3 says where versioning is suspended
		o.versionID = ""
	}
	return o
}

// input describes the object. The body ends at the size that the file had when
// it was opened: a file that grows must not be sent beyond its Content-Length.
func (d *delivery) input(ctx context.Context) *s3.PutObjectInput {
	in := &s3.PutObjectInput{
		Bucket:       &d.dest.Bucket,
		Key:          &d.dest.Key,
		Body:         d.section(ctx),
		ContentType:  aws.String(d.contentType()),
		Metadata:     d.req.Metadata,
		StorageClass: types.StorageClass(d.req.StorageClass),
		IfNoneMatch:  d.condition(),
	}
	if d.req.Encryption != "" {
		in.ServerSideEncryption = types.ServerSideEncryption(d.req.Encryption)
	}
	if d.req.KMSKeyID != "" {
		in.SSEKMSKeyId = &d.req.KMSKeyID
	}
	if len(d.req.Tags) > 0 {
		in.Tagging = aws.String(encodeTags(d.req.Tags))
	}
	return in
}

func (d *delivery) contentType() string {
	return cmp.Or(d.req.ContentType, mediaType(d.dest.Key, d.req.File))
}

// section returns a reader of the file up to the size that it had when it was
// opened. Its reads end with the context.
func (d *delivery) section(ctx context.Context) *io.SectionReader {
	return io.NewSectionReader(d.file.Reader(ctx), 0, d.file.Size())
}

// placing says which failures of a request are answered in place.
type placing int

const (
	first   placing = iota // those that the next connection mends: else the push gives its place back
	inPlace                // all that may pass: the requests around it have got somewhere
)

// request is the way of every request to the store: it takes a slot, makes an
// attempt, gives the slot back, and repeats that as the retry policy says. No
// slot is held during a backoff, nor while the store cannot be reached, which
// uses no attempts up. Nor does a connection that is gone when it is used: the
// request goes again at once, as often as there are connections. When the daemon
// stops it does not wait for the store to come back: the push is as well off in the
// journal, with the parts that have arrived. What the store refuses for credentials
// that have been replaced since is no attempt either.
func (d *delivery) request(ctx context.Context, operation string, k kind, p placing, attempt func(context.Context, *commitment) error) error {
	return d.requestPart(ctx, operation, 0, k, p, attempt)
}

// requestPart is request, of the part of that number, from 1; 0: of no part.
func (d *delivery) requestPart(ctx context.Context, operation string, number int32, k kind, p placing, attempt func(context.Context, *commitment) error) error {
	gone := 0    // connections that were so
	changed := 0 // credentials that were others by the time that the store had refused them
	for n := 1; ; n++ {
		if err := d.up.endpoint.wait(ctx, d.up.leaving); err != nil {
			return err
		}
		if err := d.up.slots.acquire(ctx, &d.turn, k); err != nil {
			return err
		}
		try := tried{operation: operation, part: number, begun: time.Now()}
		err := d.attempt(ctx, operation, k, attempt)
		try.ended = time.Now()
		if d.goesAgain(operation, err) && gone < d.up.limit {
			gone++
			n--
			continue
		}
		if renewed(err) && changed < mostRenewals {
			changed++
			n--
			continue
		}
		if d.up.endpoint.blamed(err) && p != first || knownDown(err) {
			n--
			continue
		}
		d.count(operation == asking && p == first, n, err)
		if err == nil || ctx.Err() != nil || errors.Is(err, errLeaving) || errors.Is(err, errRecordOld) {
			return err
		}
		// What the file did to the attempt is not the store's failure.
		if d.file != nil && operation != asking && operation != aborting {
			if why := d.file.Check(ctx); why != nil {
				return &requestError{why, try}
			}
		}
		d.up.lostConnection(err)
		wait, again := d.up.retry.withinRequest(n, err, p != first, d.before)
		if !again {
			return &requestError{err, try}
		}
		d.noteFailed(try, n, err, wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
		if operation == putting {
			if made, err := d.wasMade(ctx); made || err != nil {
				return err
			}
		}
	}
}

// mostRenewals is how often a request is made anew at once for that: credentials do not
// change more often while one is under way, unless something is wrong.
const mostRenewals = 3

// goesAgain reports whether an attempt met a connection that was gone. Where no
// object is to be replaced, the store may have refused the request before it had
// read it, and closed the connection on its answer: see create.
func (d *delivery) goesAgain(operation string, err error) bool {
	return untaken(err) && (operation != putting || d.condition() == nil)
}

// attempt makes one attempt with the slot that was acquired, and gives it back.
// When the context ends, the attempt does, unless it is committed: only the
// stopping of the daemon ends it then.
func (d *delivery) attempt(ctx context.Context, operation string, k kind, attempt func(context.Context, *commitment) error) error {
	defer d.up.slots.release(&d.turn, k)
	begun := time.Now()
	c := &commitment{of: ctx}
	inner, end := d.bind(ctx, c)
	defer end()
	inner, ended := d.exchange(inner, operation)
	err := attempt(inner, c)
	ended(err)
	err = d.up.credentials.judge(ctx, tripOf(inner).signedBy, err)
	if !errors.Is(err, errLeaving) && !errors.Is(err, errRecordOld) && !heldBack(err) { // else it was never made
		d.up.metrics.request(operation, err, time.Since(begun))
		d.up.takes.note(operation, err)
	}
	return err
}

// lostConnection draws from a request that failed what it says of the way to the
// store.
func (u *Uploader) lostConnection(err error) {
	broken, broke := errors.AsType[*transport.BrokenError](err)
	switch {
	case stalledAt(err, transport.Connecting):
		u.endpoint.lost(err)
	case broke && !broken.Idle && !broken.Vouched || stalledAt(err, transport.Sending):
		u.endpoint.suspect(err)
	}
}

// bind returns the context of an attempt, and what to call after it.
func (d *delivery) bind(ctx context.Context, c *commitment) (inner context.Context, end func()) {
	if d.file != nil && d.file.Size() <= inMemory && ctx.Err() == nil { // all of it leaves at once
		c.commit()
		return d.up.stopped, func() {}
	}
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	forget := context.AfterFunc(ctx, func() {
		if c.abandon() || d.up.stopped.Err() != nil {
			cancel(context.Cause(ctx))
			return
		}
		stop := context.AfterFunc(d.up.stopped, func() { cancel(context.Canceled) })
		context.AfterFunc(inner, func() { stop() })
	})
	return inner, func() {
		forget()
		cancel(nil)
	}
}

// mostAttempts returns the most that one request of the run needed so far, with
// the questions that were not answered.
func (d *delivery) mostAttempts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.attempts + d.askedInVain
}

// count notes attempt number n at a request. A question that goes before one is an
// attempt at the push only if it is not answered.
func (d *delivery) count(asks bool, n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !asks:
		d.attempts = max(d.attempts, n)
	case err != nil && answerOf(err).Status != http.StatusNotFound:
		d.askedInVain++
	}
}

// encodeTags writes tags as the x-amz-tagging header wants them: a query, with
// spaces as %20, since Ceph takes a plus for a plus.
func encodeTags(tags map[string]string) string {
	values := make(url.Values, len(tags))
	for name, value := range tags {
		values.Set(name, value)
	}
	return strings.ReplaceAll(values.Encode(), "+", "%20")
}
