package uploader

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// Stores are asked for what they do with If-None-Match, since those that do not
// know it ignore it, and replace what was to stay.

// heeding is what an operation of the store does with the condition.
type heeding uint8

const (
	unsure  heeding = iota // it could not be found out
	heeded                 // an object that exists is not replaced
	ignored                // it is
)

const (
	// askHeedAgain is how long a bucket is left alone in which it could not be found
	// out.
	askHeedAgain = time.Hour
	// probeTakes is how long the requests of a probe may take, all in all. A store
	// that is silent for as long does not tell.
	probeTakes = 30 * time.Second
	// mostFindings is how many findings are kept: more buckets than anybody has.
	mostFindings = 4096
)

// conditions is what is known of the store. It is found out once in the life of a
// process, for each bucket, since there may be several stores behind one endpoint,
// and for each operation.
type conditions struct {
	most   int           // questions that may be under way at once, each of which has a push's place
	takes  time.Duration // see probeTakes
	probes sync.Map      // the uploadName of each probe that is under way

	mu     sync.Mutex // guards all below
	found  map[trait]finding
	asking map[trait]chan struct{} // closed when the question that is under way has ended
}

// trait is what can be found out.
type trait struct{ bucket, operation string }

type finding struct {
	is heeding
	at time.Time
}

func newConditions(places int) *conditions {
	return &conditions{most: max(1, places/4), takes: probeTakes, found: make(map[trait]finding), asking: make(map[trait]chan struct{})}
}

// awaitsError ends a run that needs what another push is about to find out. Its
// push goes back to the queue until then, for who waits must not hold a place.
type awaitsError struct{ over <-chan struct{} }

func (e *awaitsError) Error() string {
	return "another push is finding out what the store does with If-None-Match"
}

// find returns what is known, or asks; only one push asks for a trait at a time,
// and the others fail with an awaitsError. What it returns without an error may be
// unsure. What has failed for want of an answer is for another attempt of the
// push.
func (c *conditions) find(about trait, ask func() (heeding, error)) (heeding, error) {
	c.mu.Lock()
	f, is := c.found[about]
	if is && (f.is != unsure || time.Since(f.at) < askHeedAgain) {
		defer c.mu.Unlock()
		return f.is, nil
	}
	if over := c.othersLocked(about); over != nil {
		defer c.mu.Unlock()
		return unsure, &awaitsError{over}
	}
	over := make(chan struct{})
	c.asking[about] = over
	c.mu.Unlock()
	h, err := ask()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.asking, about)
	close(over)
	if err == nil {
		c.keepLocked(about, finding{h, time.Now()})
	}
	return h, err
}

// othersLocked returns what ends with the question to be waited for: the same, or
// any if there are as many as may be. It is nil if there is none.
func (c *conditions) othersLocked(about trait) <-chan struct{} {
	if over := c.asking[about]; over != nil {
		return over
	}
	if len(c.asking) >= c.most {
		for _, over := range c.asking {
			return over
		}
	}
	return nil
}

// keepLocked keeps a finding, in the place of any other if there are too many.
func (c *conditions) keepLocked(about trait, f finding) {
	if _, is := c.found[about]; !is && len(c.found) >= mostFindings {
		for other := range c.found {
			delete(c.found, other)
			break
		}
	}
	c.found[about] = f
}

// putting is the operation that makes an object of one request.
const putting = "PutObject"

// heeds returns what the operation does with the condition. To find that out is an
// attempt at the push, if it fails.
func (d *delivery) heeds(ctx context.Context, operation string) (heeding, error) {
	asked := false
	h, err := d.up.conditions.find(trait{d.dest.Bucket, operation}, func() (heeding, error) {
		asked = true
		return d.findOut(ctx, operation)
	})
	if asked {
		d.up.hastenAwaiting()
	}
	if err == errNoProbe {
		return unsure, nil
	}
	return h, err
}

// errNoProbe says that no probe beside the push's object would be where pushes may go.
// It says nothing of other keys in the bucket.
var errNoProbe = errors.New("there is no place for a probe")

// findOut asks by a probe.
func (d *delivery) findOut(ctx context.Context, operation string) (heeding, error) {
	ask := (*probe).put
	if operation == completing {
		ask = (*probe).complete
	}
	h, err := d.probe(ctx, ask)
	switch {
	case err == nil:
		d.up.log.Info("found out what the store does with If-None-Match", "operation", operation, "heeds", h == heeded, "bucket", d.dest.Bucket)
	case errors.Is(err, errUntold):
		d.up.log.Warn("could not find out what the store does with If-None-Match", "operation", operation, "bucket", d.dest.Bucket, "error", inBrief(err))
		err = nil
	case err == errNoProbe:
	default:
		d.count(false, 1, err)
	}
	return h, err
}

// probe makes an object of its own beside that of a push, to see what the store
// does with requests that may not replace it. Its upload in the journal leads to
// it, if the process ends before it has been removed.
type probe struct {
	*delivery
	upload journal.Upload
	id     string        // of the upload at the store
	object bool          // there may be one
	lost   bool          // there may be an upload whose id nobody heard
	late   bool          // a request ended so that what it makes may be there later
	left   time.Duration // for its requests
}

// probeName is in the keys of probes, after the push's own.
const probeName = ".s3daemon-probe-"

// probe asks by a probe, and removes what that made. Until then the janitor
// leaves it alone.
func (d *delivery) probe(ctx context.Context, ask func(*probe, context.Context) (heeding, error)) (h heeding, err error) {
	dest := push.Destination{Bucket: d.dest.Bucket, Key: probeKey(d.dest.Key)}
	if d.up.places.Check(dest) != nil { // its key was cut
		return unsure, errNoProbe
	}
	p := &probe{
		delivery: &delivery{up: d.up, dest: dest, id: d.id, clock: d.clock, req: push.Request{Overwrite: d.req.Overwrite, Encryption: d.req.Encryption, KMSKeyID: d.req.KMSKeyID}},
		upload:   journal.Upload{Push: d.id, BegunAt: time.Now().UTC(), Store: d.up.name, Bucket: dest.Bucket, Key: dest.Key, Probe: true},
		left:     d.up.conditions.takes,
	}
	d.up.conditions.probes.Store(nameOf(&p.upload), nil)
	defer func() {
		removed := ctx.Err() == nil && p.remove() // else the end of the push would have to wait for it
		d.up.conditions.probes.Delete(nameOf(&p.upload))
		if !removed {
			d.up.janitor.wake()
		}
	}()
	if err := d.up.keepUpload(ctx, &p.upload); err != nil {
		return unsure, err
	}
	return ask(p, ctx)
}

// send makes a request of the probe. Only time with the store counts as taken by
// it. Where that is silent it does not tell: all who want to know it would have to
// wait for as long.
func (p *probe) send(ctx context.Context, operation string, attempt func(context.Context) error) error {
	return p.request(ctx, operation, single, first, func(ctx context.Context, _ *commitment) error {
		begun := time.Now()
		ctx, cancel := context.WithTimeoutCause(ctx, p.left, errSlowProbe)
		defer cancel()
		err := attempt(ctx)
		p.left -= time.Since(begun)
		if err != nil && context.Cause(ctx) == errSlowProbe {
			return fmt.Errorf("%w: %w", errUntold, err)
		}
		return err
	})
}

var errSlowProbe = errors.New("the store takes too long to answer")

// longestName is the most that an element of a key has that probeKey makes: stores on
// file systems take no longer ones.
const longestName = 255

// probeKey is a key that nobody else has. It begins with the push's own as far as both
// fit, so that whoever may write that, by the rules of the daemon or of the store, may
// write this one too.
func probeKey(key string) string {
	suffix := probeName + rand.Text()
	dir, name := path.Split(key)
	most := min(len(dir)+min(len(name), longestName-len(suffix)), push.MaxKeyBytes-len(suffix))
	for !utf8.ValidString(key[:most]) { // a cut amid a character
		most--
	}
	return key[:most] + suffix
}

// put asks about PutObject.
func (p *probe) put(ctx context.Context) (heeding, error) {
	err := p.makeObject(ctx)
	if err == nil {
		err = p.makeObject(ctx)
	}
	switch {
	case err == nil:
		return ignored, nil
	case conditionFailed(err): // the first one by itself: a try of it whose answer was lost
		return heeded, nil
	}
	return unsure, untold(err)
}

// complete asks about CompleteMultipartUpload.
func (p *probe) complete(ctx context.Context) (heeding, error) {
	if err := p.makeObject(ctx); err != nil && !conditionFailed(err) {
		return unsure, untold(err)
	}
	if err := p.beginUpload(ctx); err != nil {
		return unsure, untold(err)
	}
	etag, err := p.sendPart(ctx)
	if err != nil {
		return unsure, untold(err)
	}
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &p.dest.Bucket, Key: &p.dest.Key, UploadId: &p.id, IfNoneMatch: p.condition(),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: etag}}},
	}
	err = p.send(ctx, completing, func(ctx context.Context) error {
		_, err := p.up.client.CompleteMultipartUpload(ctx, in)
		p.late = p.late || err != nil && unclear(err)
		return err
	})
	switch {
	case err == nil:
		return ignored, nil
	case conditionFailed(err):
		return heeded, nil
	case answerOf(err).Status != 0 && !nameless(answerOf(err)): // even if it says that it may do so later
		return unsure, fmt.Errorf("%w: %w", errUntold, err)
	}
	return unsure, err
}

// errUntold marks the failure of a request by which a question is answered: it
// need not be asked again soon.
var errUntold = errors.New("it is not to be found out")

// untold marks a failure so that another attempt does not change. That there is
// no bucket, its push will hear as well; and what no store says, but something
// before it, is not the store's answer.
func untold(err error) error {
	if answer := answerOf(err); answer.Status == 0 || transient(err) || answer.Code == "NoSuchBucket" || nameless(answer) {
		return err
	}
	return fmt.Errorf("%w: %w", errUntold, err)
}

// nameless reports whether an answer has no code of S3, as the pages of proxies
// and portals. The SDK puts the name of the status in its place.
func nameless(a push.StoreAnswer) bool {
	name := http.StatusText(a.Status)
	code := strings.ReplaceAll(name, " ", "")
	return a.Code == "" || a.Code == code && (a.Message == name || a.Message == "" && code == name)
}

// probeBody returns what a request of a probe sends, with its Content-MD5: buckets
// with Object Lock take nothing without a checksum, and this one all stores know.
func probeBody(text string) (io.Reader, *string) {
	sum := md5.Sum([]byte(text))
	return strings.NewReader(text), aws.String(base64.StdEncoding.EncodeToString(sum[:]))
}

// makeObject makes an empty object, if there is none.
func (p *probe) makeObject(ctx context.Context) error {
	in := &s3.PutObjectInput{Bucket: &p.dest.Bucket, Key: &p.dest.Key, IfNoneMatch: p.condition(), ServerSideEncryption: types.ServerSideEncryption(p.req.Encryption)}
	if p.req.KMSKeyID != "" {
		in.SSEKMSKeyId = &p.req.KMSKeyID
	}
	return p.send(ctx, putting, func(ctx context.Context) error {
		in.Body, in.ContentMD5 = probeBody("")
		out, err := p.up.client.PutObject(ctx, in)
		p.object = p.object || err == nil || conditionFailed(err)
		if err != nil {
			p.late = p.late || unclear(err)
			return err
		}
		return p.acknowledged(bareETag(aws.ToString(out.ETag)))
	})
}

func (p *probe) beginUpload(ctx context.Context) error {
	in := &s3.CreateMultipartUploadInput{Bucket: &p.dest.Bucket, Key: &p.dest.Key, ServerSideEncryption: types.ServerSideEncryption(p.req.Encryption)}
	if p.req.KMSKeyID != "" {
		in.SSEKMSKeyId = &p.req.KMSKeyID
	}
	return p.send(ctx, "CreateMultipartUpload", func(ctx context.Context) error {
		out, err := p.up.client.CreateMultipartUpload(ctx, in)
		if err != nil {
			p.lost = p.lost || unclear(err)
			return err
		}
		if p.id = aws.ToString(out.UploadId); !p.lost { // else all uploads of the key are looked for
			p.upload.ID = p.id
			p.up.journal.PutUpload(&p.upload, nil)
		}
		return nil
	})
}

func (p *probe) sendPart(ctx context.Context) (etag *string, err error) {
	in := &s3.UploadPartInput{Bucket: &p.dest.Bucket, Key: &p.dest.Key, UploadId: &p.id, PartNumber: aws.Int32(1)}
	err = p.send(ctx, "UploadPart", func(ctx context.Context) error {
		in.Body, in.ContentMD5 = probeBody(".")
		out, err := p.up.client.UploadPart(ctx, in)
		if err == nil {
			etag = out.ETag
		}
		return err
	})
	return etag, err
}

// remove removes all that the probe has made, or reports that it could not. What
// is not removed, or may be there later, is the janitor's.
func (p *probe) remove() bool {
	ctx, cancel := context.WithTimeout(p.up.stopped, p.left)
	defer cancel()
	var err error
	switch {
	case p.id != "" || p.lost:
		err = p.up.janitor.removeProbe(ctx, p.delivery, &p.upload)
	case p.object || p.late:
		err = p.removeObject(ctx)
	}
	switch {
	case err != nil:
		p.up.log.Warn("a probe is left behind for now", "bucket", p.dest.Bucket, "key", p.dest.Key, "error", inBrief(err))
	case !p.lost && !p.late:
		p.up.journal.DropUpload(&p.upload, nil)
		return true
	}
	return false
}
