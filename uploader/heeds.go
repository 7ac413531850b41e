package uploader

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

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

// askHeedAgain is how long a bucket is left alone in which it could not be found
// out.
const askHeedAgain = time.Hour

// conditions is what is known of the store, for PutObject and
// CompleteMultipartUpload apart. It is found out once in the life of a process.
type conditions struct {
	put, complete conditionOf
	probes        sync.Map // the uploadName of each probe that is under way
}

// conditionOf is what is known of one operation.
type conditionOf struct {
	mu     sync.Mutex // guards all below
	known  heeding
	vain   map[string]time.Time // when a bucket was asked in vain
	asking chan struct{}        // closed when the question that is under way has ended; nil if none is
}

// find returns what is known, or asks; only one asks at a time. What it returns
// without an error may be unsure.
func (c *conditionOf) find(ctx context.Context, bucket string, ask func() (heeding, error)) (heeding, error) {
	for {
		c.mu.Lock()
		last, asked := c.vain[bucket]
		switch {
		case c.known != unsure || asked && time.Since(last) < askHeedAgain:
			defer c.mu.Unlock()
			return c.known, nil
		case c.asking == nil:
			c.asking = make(chan struct{})
			c.mu.Unlock()
			return c.learn(bucket, ask)
		}
		asking := c.asking
		c.mu.Unlock()
		select {
		case <-asking:
		case <-ctx.Done():
			return unsure, context.Cause(ctx)
		}
	}
}

// learn asks, and keeps what comes of it. What has failed for want of an answer
// is for another attempt of the push.
func (c *conditionOf) learn(bucket string, ask func() (heeding, error)) (heeding, error) {
	h, err := ask()
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.asking)
	c.asking = nil
	switch {
	case err != nil:
	case h == unsure:
		if c.vain == nil {
			c.vain = make(map[string]time.Time)
		}
		c.vain[bucket] = time.Now()
	default:
		c.known = h
	}
	return h, err
}

// putting is the operation that makes an object of one request.
const putting = "PutObject"

// heeds returns what the operation does with the condition.
func (d *delivery) heeds(ctx context.Context, operation string) (heeding, error) {
	c, ask := &d.up.conditions.put, (*probe).put
	if operation == completing {
		c, ask = &d.up.conditions.complete, (*probe).complete
	}
	return c.find(ctx, d.dest.Bucket, func() (heeding, error) {
		h, err := d.probe(ctx, ask)
		switch {
		case err == nil:
			d.up.log.Info("found out what the store does with If-None-Match", "operation", operation, "heeds", h == heeded, "bucket", d.dest.Bucket)
		case errors.Is(err, errUntold):
			d.up.log.Warn("could not find out what the store does with If-None-Match", "operation", operation, "bucket", d.dest.Bucket, "error", inBrief(err))
			err = nil
		}
		return h, err
	})
}

// probe makes an object of its own beside that of a push, to see what the store
// does with requests that may not replace it. Its upload in the journal leads to
// it, if the process ends before it has been removed.
type probe struct {
	*delivery
	upload journal.Upload
	id     string // of the upload at the store
	object bool   // there may be one
	lost   bool   // there may be an upload whose id nobody heard
}

// probeName begins the last element of the keys of probes.
const probeName = ".s3daemon-probe-"

// probe asks by a probe, and removes what that made. Until then the janitor
// leaves it alone.
func (d *delivery) probe(ctx context.Context, ask func(*probe, context.Context) (heeding, error)) (h heeding, err error) {
	dest := push.Destination{Bucket: d.dest.Bucket, Key: probeKey(d.dest.Key)}
	p := &probe{
		delivery: &delivery{up: d.up, dest: dest, id: d.id, req: push.Request{Overwrite: d.req.Overwrite, Encryption: d.req.Encryption, KMSKeyID: d.req.KMSKeyID}},
		upload:   journal.Upload{Push: d.id, BegunAt: time.Now().UTC(), Store: d.up.name, Bucket: dest.Bucket, Key: dest.Key, Probe: true},
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

// probeKey is a key that nobody else has, below the same prefix. It fits where
// the key does.
func probeKey(key string) string {
	dir, _ := path.Split(key)
	name := probeName + rand.Text()
	if len(dir)+len(name) > push.MaxKeyBytes {
		return name
	}
	return dir + name
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
	err = p.request(ctx, completing, single, question, func(ctx context.Context, _ *commitment) error {
		_, err := p.up.client.CompleteMultipartUpload(ctx, in)
		return err
	})
	switch {
	case err == nil:
		return ignored, nil
	case conditionFailed(err):
		return heeded, nil
	case answerOf(err).Status != 0: // even if it says that it may do so later
		return unsure, fmt.Errorf("%w: %w", errUntold, err)
	}
	return unsure, err
}

// errUntold marks the failure of a request by which a question is answered: it
// need not be asked again soon.
var errUntold = errors.New("it is not to be found out")

// untold marks a failure so that another attempt does not change. That there is
// no bucket, its push will hear as well.
func untold(err error) error {
	if answer := answerOf(err); answer.Status == 0 || transient(err) || answer.Code == "NoSuchBucket" {
		return err
	}
	return fmt.Errorf("%w: %w", errUntold, err)
}

// makeObject makes an empty object, if there is none.
func (p *probe) makeObject(ctx context.Context) error {
	in := &s3.PutObjectInput{Bucket: &p.dest.Bucket, Key: &p.dest.Key, IfNoneMatch: p.condition(), ServerSideEncryption: types.ServerSideEncryption(p.req.Encryption)}
	if p.req.KMSKeyID != "" {
		in.SSEKMSKeyId = &p.req.KMSKeyID
	}
	return p.request(ctx, putting, single, question, func(ctx context.Context, _ *commitment) error {
		in.Body = bytes.NewReader(nil)
		out, err := p.up.client.PutObject(ctx, in)
		p.object = p.object || err == nil || unclear(err) || conditionFailed(err)
		if err != nil {
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
	return p.request(ctx, "CreateMultipartUpload", single, question, func(ctx context.Context, _ *commitment) error {
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
	err = p.request(ctx, "UploadPart", single, question, func(ctx context.Context, _ *commitment) error {
		in.Body = bytes.NewReader([]byte{'.'})
		out, err := p.up.client.UploadPart(ctx, in)
		if err == nil {
			etag = out.ETag
		}
		return err
	})
	return etag, err
}

// remove removes all that the probe has made, or reports that it could not. What
// is not removed, or does not show yet, is the janitor's.
func (p *probe) remove() bool {
	var err error
	switch {
	case p.id != "" || p.lost:
		err = p.up.janitor.cleanUp(p.up.stopped, p.delivery, &p.upload)
	case p.object:
		err = p.removeObject(p.up.stopped)
	}
	switch {
	case err != nil:
		p.up.log.Warn("a probe is left behind for now", "bucket", p.dest.Bucket, "key", p.dest.Key, "error", inBrief(err))
	case !p.lost:
		p.up.journal.DropUpload(&p.upload, nil)
	}
	return err == nil
}
