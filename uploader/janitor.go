package uploader

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// janitor sees to it that no multipart upload stays at the store that no push
// goes on with: nobody lists its parts, and somebody pays for them. It knows
// such orphans from the journal alone, and touches nothing else.
//
// It works at the start, hourly, and when it is woken. An orphan that it could
// not settle has another try after a pause; each is longer than the one before.
// What it settles it takes out of the journal.
type janitor struct {
	up    *Uploader
	begun time.Time // when this process began
	woken chan struct{}
	later map[uploadName]*postponed // belongs to run

	refused map[string]*refusals // by bucket; belongs to run

	mu    sync.Mutex
	clock storeClock // guarded by mu
}

func newJanitor(u *Uploader) *janitor {
	return &janitor{up: u, begun: time.Now(), woken: make(chan struct{}, 1), later: make(map[uploadName]*postponed)}
}

// wake says that there may be another orphan.
func (j *janitor) wake() {
	select {
	case j.woken <- struct{}{}:
	default:
	}
}

const (
	janitorRests  = 100 * time.Millisecond // between two rounds: each reads all of the journal's uploads
	janitorSleeps = time.Hour              // at most
)

// run works until the daemon stops. It holds that up no longer than a request
// that is cut off.
func (j *janitor) run() {
	for {
		pause := j.round()
		rested := time.After(janitorRests)
		select {
		case <-j.woken:
		case <-time.After(pause):
		case <-j.up.leaving:
			return
		}
		select {
		case <-rested:
		case <-j.up.leaving:
			return
		}
	}
}

// round looks at each orphan whose time has come, and returns when it is to be
// done again.
func (j *janitor) round() (pause time.Duration) {
	orphans, err := j.up.orphans()
	if err != nil {
		j.up.log.Error("multipart uploads may be left behind: the journal cannot be read", "error", err.Error())
		return janitorSleeps
	}
	j.remember(orphans)
	// So where a bucket's orphans wait for each other, each has its turn.
	slices.SortStableFunc(orphans, func(a, b journal.Upload) int {
		return j.later[nameOf(&a)].tries - j.later[nameOf(&b)].tries
	})
	next := time.Now().Add(janitorSleeps)
	for i := range orphans {
		if due := j.visit(&orphans[i]); due.Before(next) {
			next = due
		}
	}
	for bucket, r := range j.refused {
		if n, first := r.told(); first {
			j.up.log.Warn("multipart uploads are left for now: the store refuses what is to be done about those of the bucket", "bucket", bucket, "waiting", n, "error", textOf(r.err))
		}
	}
	return time.Until(next)
}

// remember keeps what is known of these orphans and their buckets, and of no others.
func (j *janitor) remember(orphans []journal.Upload) {
	later, refused := make(map[uploadName]*postponed, len(orphans)), make(map[string]*refusals)
	for i := range orphans {
		name, bucket := nameOf(&orphans[i]), orphans[i].Bucket
		later[name] = cmp.Or(j.later[name], &postponed{seen: time.Now()})
		refused[bucket] = cmp.Or(refused[bucket], j.refused[bucket], new(refusals))
	}
	j.later, j.refused = later, refused
}

// visit looks at an orphan if its time has come, and returns when it is to be
// looked at next: even if it was settled, since that may not be on disk yet.
func (j *janitor) visit(o *journal.Upload) (due time.Time) {
	p, r := j.later[nameOf(o)], j.refused[o.Bucket]
	if o.CompletedAt.After(p.seen) { // the clock was set back since
		o.CompletedAt = p.seen
	}
	switch now := time.Now(); {
	case j.up.leaves():
	case now.Before(r.due):
		r.waiting++
	case !now.Before(p.due):
		err := j.settle(o, p)
		p.again(time.Now())
		r.note(err, time.Now())
	}
	return later(p.due, r.due)
}

// leaves reports whether the daemon has begun to stop.
func (u *Uploader) leaves() bool {
	select {
	case <-u.leaving:
		return true
	default:
		return false
	}
}

// errTooEarly says that what an orphan calls for is to be done later.
var errTooEarly = errors.New("it may still be under way")

// settle does what an orphan calls for, and returns why that could not be done.
func (j *janitor) settle(o *journal.Upload, p *postponed) error {
	d := &delivery{up: j.up, dest: push.Destination{Bucket: o.Bucket, Key: o.Key}}
	ctx := j.up.stopped
	log := j.up.log.With("bucket", o.Bucket, "key", o.Key, "upload_id", o.ID, "id", o.Push.String())
	var err error
	switch dutyOf(o, j.up.name) {
	case give:
		err = d.abort(ctx, o.ID, o.Push)
	case clean:
		err = j.cleanUp(ctx, d, o)
	case ask:
		err = d.abortUnlessCompleted(ctx, o)
	case search:
		err = j.searchFor(ctx, d, o)
	case spare:
		err = d.abortElsewhere(ctx, o)
	}
	switch {
	case err == nil:
		j.up.journal.DropUpload(o, nil)
	case j.up.stopped.Err() != nil || errors.Is(err, errLeaving):
	case p.hopeless(o, time.Now()):
		log.Warn("a multipart upload is left behind: nothing could be done about it for a week", "error", textOf(err))
		j.up.journal.DropUpload(o, nil)
	case errors.Is(err, errTooEarly):
	case p.tries == 0 || p.tries == enoughTries:
		log.Warn("a multipart upload could not be aborted yet", "error", textOf(err))
	}
	return err
}

// abortKnown gives an upload up that was begun for that push.
func (d *delivery) abortKnown(ctx context.Context, id string, of push.ID) error {
	in := &s3.AbortMultipartUploadInput{Bucket: &d.dest.Bucket, Key: &d.dest.Key, UploadId: &id}
	err := d.request(ctx, aborting, single, first, func(ctx context.Context, _ *commitment) error {
		_, err := d.up.client.AbortMultipartUpload(ctx, in)
		return err
	})
	if err == nil {
		d.up.metrics.aborts.Inc()
		d.up.log.Info("multipart upload aborted: no push goes on with it", "bucket", d.dest.Bucket, "key", d.dest.Key, "upload_id", id, "id", of.String())
	}
	return err
}

// abort gives an upload up that was begun for that push. It is no failure if the
// store does not know it any more.
func (d *delivery) abort(ctx context.Context, id string, of push.ID) error {
	if err := d.abortKnown(ctx, id, of); !gone(err) {
		return err
	}
	return nil
}

// abortElsewhere gives up an upload that was begun when the store had another name,
// if it is the same store. It stays known where this one does not know it: another
// may have it, which the daemon may be given again.
func (d *delivery) abortElsewhere(ctx context.Context, o *journal.Upload) error {
	var err error
	switch {
	case o.ID == "" || o.Probe:
		return errors.New("another store may have it: " + o.Store)
	case o.CompletedAt.IsZero():
		err = d.abortKnown(ctx, o.ID, o.Push)
	default:
		if _, err = d.begunParts(ctx, o.ID); !gone(err) {
			err = d.abortUnlessCompleted(ctx, o)
		}
	}
	if gone(err) {
		return errors.New("this store does not know it, another has it: " + o.Store)
	}
	return err
}

// begunParts reports whether an upload has parts. An upload that is not there
// is gone.
func (d *delivery) begunParts(ctx context.Context, id string) (any bool, err error) {
	in := &s3.ListPartsInput{Bucket: &d.dest.Bucket, Key: &d.dest.Key, UploadId: &id, MaxParts: aws.Int32(1)}
	err = d.request(ctx, askingParts, single, first, func(ctx context.Context, _ *commitment) error {
		out, err := d.up.client.ListParts(ctx, in)
		any = err == nil && len(out.Parts) > 0
		return err
	})
	return any, err
}

// abortUnlessCompleted gives up an upload whose completion was asked for, unless
// it may have been carried out, or may still be.
func (d *delivery) abortUnlessCompleted(ctx context.Context, o *journal.Upload) error {
	shown, err := d.begunParts(ctx, o.ID)
	if gone(err) {
		return nil
	}
	d.req.Encryption = byKMS // of which an ETag tells nothing, unless the push says otherwise
	if r, found, err := d.up.journal.Get(o.Push); err == nil && found {
		d.req = r.Request
	}
	if time.Since(o.CompletedAt) < completionTakes {
		return errTooEarly
	}
	parts, err := d.up.journal.Parts(o)
	if err != nil {
		return err
	}
	sent := make([]sentPart, len(parts))
	for i := range parts {
		sent[i] = sentPartOf(&parts[i])
	}
	switch s, err := d.lookFirst(ctx, sent); {
	case err != nil:
		return err
	case s.is == ourObject || s.is == someObject:
		switch another, err := d.madeSince(s, o); {
		case err != nil:
			return err
		case !shown || !another:
			return errors.New("the object may have been made of it")
		}
	}
	return d.abort(ctx, o.ID, o.Push)
}

// madeSince reports whether the object that the store showed, which may be the
// orphan's by its bytes, is known to be that of a later push: one that replaced
// whatever was there, ended after the orphan's completion was asked for, and left
// the object as it is, which nobody has written since.
func (d *delivery) madeSince(s sight, o *journal.Upload) (is bool, err error) {
	age, known := ageOf(s.head)
	if !known {
		return false, nil
	}
	written, etag := s.at.Add(-age), bareETag(aws.ToString(s.head.ETag))
	dest := d.dest.String()
	want := func(b *journal.Brief) bool { return b.State == push.Done && string(b.Destination) == dest }
	var why error
	err = d.up.journal.SinceWhere(o.Push, want, func(r *journal.Record) bool {
		from, to := later(r.AcceptedAt, o.CompletedAt).Add(-writtenSlack), r.FinishedAt.Add(writtenSlack)
		if r.Request.CreateOnly() || r.FinishedAt.Before(o.CompletedAt) || written.Before(from) || written.After(to) || bareETag(r.ETag) != etag {
			return true
		}
		var left []journal.Upload
		left, why = d.up.journal.Uploads(r.ID)
		is = why == nil && len(left) == 0 // else one of those may be what it was made of
		return !is && why == nil
	})
	return is, cmp.Or(err, why)
}

// searchFor looks for an upload that was to be begun, and whose id nobody heard.
// It is over once such an upload cannot appear any more. Where a push to the
// object is in the queue, that is left to its run, which may be beginning one.
func (j *janitor) searchFor(ctx context.Context, d *delivery, o *journal.Upload) error {
	since := later(o.BegunAt, j.begun)
	settled := time.Since(since) >= creationTakes
	if d.up.inQueue(d.dest) {
		return errTooEarly
	}
	err := j.clear(ctx, d, []journal.Upload{*o}, func() bool { return !d.up.inQueue(d.dest) })
	if err == nil && !settled {
		err = errTooEarly
	}
	return err
}

// cleanUp removes all that a question about what the store can do has made, until
// nothing of it can appear any more: its requests may still be on their way.
func (j *janitor) cleanUp(ctx context.Context, d *delivery, o *journal.Upload) error {
	settled := time.Since(later(o.BegunAt, j.begun)) >= creationTakes
	err := j.removeProbe(ctx, d, o)
	if err == nil && !settled {
		err = errTooEarly
	}
	return err
}

// removeProbe removes what there is of the object and the uploads of a question:
// its key is nobody else's. What one of them fails with keeps no other.
func (j *janitor) removeProbe(ctx context.Context, d *delivery, o *journal.Upload) error {
	errs := []error{d.removeObject(ctx)}
	uploads := []string{o.ID}
	if o.ID == "" {
		listed, err := j.list(ctx, d)
		errs, uploads = append(errs, err), nil
		for _, l := range listed {
			uploads = append(uploads, aws.ToString(l.UploadId))
		}
	}
	for _, id := range uploads {
		errs = append(errs, d.abort(ctx, id, o.Push))
	}
	return errors.Join(slices.DeleteFunc(errs, gone)...)
}

// removeObject deletes the object, with all its versions.
func (d *delivery) removeObject(ctx context.Context) error {
	marked, err := d.delete(ctx, nil)
	if err != nil || !marked {
		return err
	}
	return d.deleteVersions(ctx)
}

// delete deletes the object, or one version of it, and reports whether all of it
// is still there, behind a mark. Most stores do not mind if there is none, and
// those that do say that it is gone, which will do.
func (d *delivery) delete(ctx context.Context, version *string) (marked bool, err error) {
	in := &s3.DeleteObjectInput{Bucket: &d.dest.Bucket, Key: &d.dest.Key, VersionId: version}
	err = d.request(ctx, "DeleteObject", single, first, func(ctx context.Context, _ *commitment) error {
		out, err := d.up.client.DeleteObject(ctx, in)
		marked = err == nil && aws.ToBool(out.DeleteMarker)
		return err
	})
	if gone(err) {
		return false, nil
	}
	return marked, err
}

// deleteVersions deletes all versions of the object, and the marks among them.
func (d *delivery) deleteVersions(ctx context.Context) error {
	in := &s3.ListObjectVersionsInput{Bucket: &d.dest.Bucket, Prefix: &d.dest.Key}
	var out *s3.ListObjectVersionsOutput
	err := d.request(ctx, "ListObjectVersions", single, first, func(ctx context.Context, _ *commitment) (err error) {
		out, err = d.up.client.ListObjectVersions(ctx, in)
		return err
	})
	if err != nil {
		return err
	}
	var versions []*string
	for _, v := range out.Versions {
		if aws.ToString(v.Key) == d.dest.Key {
			versions = append(versions, v.VersionId)
		}
	}
	for _, m := range out.DeleteMarkers {
		if aws.ToString(m.Key) == d.dest.Key {
			versions = append(versions, m.VersionId)
		}
	}
	for _, v := range versions {
		if _, err := d.delete(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// inQueue reports whether there is a push to the object that has not ended.
func (u *Uploader) inQueue(dest push.Destination) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.queue.chains[u.objectHash(dest)] != nil
}

// clearIntents aborts what was left of the object's uploads whose ids nobody
// heard. It is for a run of a push to that object before it begins one of its
// own. The journal has them until they cannot appear any more.
func (d *delivery) clearIntents(ctx context.Context) error {
	intents, err := d.up.uploads(func(up *journal.Upload) bool {
		return dutyOf(up, d.up.name) == search && up.Bucket == d.dest.Bucket && up.Key == d.dest.Key
	})
	if err != nil || len(intents) == 0 {
		return err
	}
	return d.up.janitor.clear(ctx, d, intents, func() bool { return true })
}

// clear aborts the uploads of an object that may be those of the intents: begun
// after one of them, with an id that the journal does not have, and without a
// part. It does so only if may is true once it knows them.
func (j *janitor) clear(ctx context.Context, d *delivery, intents []journal.Upload, may func() bool) error {
	listed, err := j.list(ctx, d)
	if gone(err) { // the bucket, with all that was in it
		return nil
	}
	if err != nil || len(listed) == 0 {
		return err
	}
	oldest := slices.MinFunc(intents, func(a, b journal.Upload) int { return a.BegunAt.Compare(b.BegunAt) })
	if !may() {
		return errTooEarly
	}
	known, err := j.up.uploads(func(up *journal.Upload) bool { return up.Bucket == d.dest.Bucket && up.Key == d.dest.Key })
	if err != nil {
		return err
	}
	j.mu.Lock()
	clock := j.clock
	j.mu.Unlock()
	for _, id := range unheard(listed, known, oldest.BegunAt, clock) {
		any, err := d.begunParts(ctx, id)
		if gone(err) || any {
			continue
		}
		switch {
		case err != nil:
		case !clock.known:
			err = errNoClock
		default:
			err = d.abort(ctx, id, oldest.Push)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errNoClock says that nothing tells an upload of ours from another's.
var errNoClock = errors.New("the store has uploads of that key, and its answers have no Date, so that nothing shows which of them is ours")

// unheard returns the ids of the uploads listed, all of one object, that the store
// began no earlier than that time of ours, as far as its clock is known, and that
// are none of those known.
func unheard(listed []types.MultipartUpload, known []journal.Upload, begun time.Time, clock storeClock) (ids []string) {
	precision := time.Second // unless one shows more
	for _, l := range listed {
		if aws.ToTime(l.Initiated).Nanosecond() != 0 {
			precision = time.Millisecond
		}
	}
	var earliest time.Time
	if clock.known {
		earliest = clock.notBefore(begun, precision)
	}
	for _, l := range listed {
		id := aws.ToString(l.UploadId)
		if id == "" || l.Initiated == nil || l.Initiated.Before(earliest) {
			continue
		}
		if !slices.ContainsFunc(known, func(up journal.Upload) bool { return up.ID == id }) {
			ids = append(ids, id)
		}
	}
	return ids
}

// list returns the uploads of exactly this object that the store has.
func (j *janitor) list(ctx context.Context, d *delivery) (listed []types.MultipartUpload, err error) {
	in := &s3.ListMultipartUploadsInput{Bucket: &d.dest.Bucket, Prefix: &d.dest.Key}
	for pages := 1; ; pages++ {
		switch {
		case pages > mostPages:
			return nil, errors.New("the store's list of multipart uploads goes on and on")
		case pages > 1 && (ctx.Err() != nil || d.up.leaves()):
			return nil, cmp.Or(context.Cause(ctx), errLeaving)
		}
		var page *s3.ListMultipartUploadsOutput
		err := d.request(ctx, "ListMultipartUploads", single, first, func(ctx context.Context, _ *commitment) (err error) {
			sent := time.Now()
			if page, err = d.up.client.ListMultipartUploads(ctx, in); err == nil {
				j.noteClock(sent, middleware.GetRawResponse(page.ResultMetadata))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, l := range page.Uploads {
			if aws.ToString(l.Key) == d.dest.Key {
				listed = append(listed, l)
			}
		}
		after, id := aws.ToString(page.NextKeyMarker), aws.ToString(page.NextUploadIdMarker)
		if !aws.ToBool(page.IsTruncated) || after == "" || after > d.dest.Key || after == aws.ToString(in.KeyMarker) && id == aws.ToString(in.UploadIdMarker) {
			return listed, nil
		}
		in.KeyMarker, in.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
	}
}

// noteClock draws from an answer what it says of the store's clock.
func (j *janitor) noteClock(sent time.Time, raw any) {
	resp, ok := raw.(*smithyhttp.Response)
	if !ok {
		return
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.clock.note(sent, time.Now(), date)
}
