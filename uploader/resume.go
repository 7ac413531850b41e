package uploader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/source"
)

// A file in parts goes on where the last run of its push has stopped, be that
// one of this process or of an earlier one. The journal has its upload from
// before the store was asked for it, and each part once the store was shown to
// have it:
//
//	PutUpload     the intent, without an id; it is on disk before
//	              CreateMultipartUpload, so that no upload is without a record
//	PutUpload     with the id; it is on disk before the first UploadPart
//	PutPart       after each UploadPart
//	PutUpload     with CompletedAt, on disk before CompleteMultipartUpload
//	End           once the object was shown
//	DropUpload
//
// The newest upload of a push that has not ended is its own, unless the push was
// put back since. All others are orphans, which a run leaves alone.

// prior is what is known of the upload that an earlier run has left.
type prior struct {
	begun   bool    // there is one, and it has an id
	fits    bool    // it is one of the file as it is, with these checksums, in parts that may be
	useless bool    // an earlier run has found that it cannot be completed
	listed  listing // what the store says of it
	asked   bool    // the store was asked to complete it
	recent  bool    // just now, so that it may be at it still
	inVain  bool    // as often as is sensible
	looked  bool    // the store was asked for the object since
	made    bool    // and has shown the one that the upload was to become
}

// listing is what a store says when it is asked for the parts of an upload.
type listing uint8

const (
	notListed  listing = iota // it was not asked
	listed                    // it has the upload
	notThere                  // it has none of that id
	notAllowed                // it does not say, to us
)

// step is what a run does about the upload that an earlier one has left.
type step uint8

const (
	beginAnew step = iota
	listParts
	lookForObject
	letItBe // for a while
	goOn    // send what the store does not have, and complete it
	nothing // is to be sent: it has been completed
)

// next returns what is to be done next.
//
//	no upload, or one without an id         begin anew: nobody knows what became of it
//	of another file or mode                 begin anew
//	known to be useless                     begin anew
//	else                                    list its parts
//	  asked to complete, or not there, and  look for the object: after the list, since one that
//	  the object not looked for             is completed in between would be seen by neither;
//	                                        and an older journal, put back, knows of no end
//	  the object is there                   nothing
//	  asked to complete too often           begin anew
//	  asked to complete just now            let it be: some stores forget the upload first and
//	                                        then make the object; on others a second completion
//	                                        that meets a slow first one destroys it
//	  the store does not know the upload    begin anew
//	  else                                  go on; where the store does not tell the parts,
//	                                        by the record: the completion will show
func (p prior) next() step {
	switch {
	case !p.begun, !p.fits, p.useless:
		return beginAnew
	case p.listed == notListed:
		return listParts
	case (p.asked || p.listed == notThere) && !p.looked:
		return lookForObject
	case p.made:
		return nothing
	case p.asked && p.inVain:
		return beginAnew
	case p.asked && p.recent:
		return letItBe
	case p.listed == notThere:
		return beginAnew
	}
	return goOn
}

// takeUp finds the upload that an earlier run has left, and prepares to go on
// with it, or else with a new one. It reports whether nothing is left to be
// done; what it amounts to is in d.got then.
func (d *delivery) takeUp(ctx context.Context) (done bool, err error) {
	up, err := d.lastUpload(ctx)
	if err != nil {
		return false, err
	}
	var p prior
	if up != nil {
		p = prior{begun: up.ID != "", fits: d.fits(up), useless: up.BegunAt.Equal(d.useless), asked: !up.CompletedAt.IsZero()}
	}
	if p.next() != beginAnew {
		if err := d.recall(up); err != nil {
			return false, err
		}
	}
	for {
		if p.asked {
			doubt := d.doubtOf(up)
			p.recent, p.inVain = time.Until(doubt.until) > 0, d.up.retry.inVain(doubt.times)
			d.maybe, d.unclear = true, time.Since(up.CompletedAt) < completionTakes
		}
		switch p.next() {
		case beginAnew:
			if p.asked {
				err = d.standApart(ctx)
			}
			d.forget()
			return false, err
		case listParts:
			if p.listed, err = d.listParts(ctx); up.Store != d.up.name && !d.shown(p.listed) {
				p.listed = notThere
			}
		case lookForObject:
			p.looked = true
			p.made, err = d.lookForCompleted(ctx)
		case letItBe:
			return false, &unclearError{err: errAtIt, wait: time.Until(d.doubt.until)}
		case goOn:
			up.Store = d.up.name
			d.logResumed()
			return false, nil
		case nothing:
			d.stored = true
			if d.got.orphans = true; p.listed == notThere {
				d.got.over = d.upload
			}
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// standApart waits before an upload is begun after one that was to be completed,
// until an object that the earlier one may have made is known by its age as none of
// the new one's: else that would be taken for completed, and stay at the store.
func (d *delivery) standApart(ctx context.Context) error {
	select {
	case <-time.After(d.up.retry.apart):
		return nil
	case <-d.up.leaving:
		return errLeaving
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// uploadSince is when the object that the upload was to become can have been written
// at the earliest. What an earlier push to the object made just before may have the
// same bytes and look as young: it is not counted, so that the upload is not left at
// the store for its sake.
func (d *delivery) uploadSince() time.Time {
	if d.madeBefore.IsZero() {
		return d.upload.BegunAt
	}
	return later(d.upload.BegunAt, d.madeBefore.Add(d.up.retry.apart))
}

// lastUpload returns the newest upload of the push; nil if it has none, or none
// since it was put back.
func (d *delivery) lastUpload(ctx context.Context) (*journal.Upload, error) {
	// What an earlier run has submitted may not be on disk yet.
	if err := onDisk(ctx, d.up.journal.Barrier); err != nil {
		return nil, err
	}
	uploads, err := d.up.journal.Uploads(d.id)
	if err != nil {
		return nil, unreadable(err)
	}
	if n := len(uploads); n > 0 {
		d.begunAt = uploads[n-1].BegunAt
	}
	return newestUpload(uploads, d.retriedAt), nil
}

// onDisk submits a change to the journal and waits until it is on disk, which
// on a full one only the context ends.
func onDisk(ctx context.Context, submit func(done func())) error {
	landed := make(chan struct{})
	submit(func() { close(landed) })
	select {
	case <-landed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// keepUpload puts an upload on disk, as onDisk does.
func (u *Uploader) keepUpload(ctx context.Context, up *journal.Upload) error {
	return onDisk(ctx, func(done func()) { u.journal.PutUpload(up, done) })
}

// fits reports whether the file can be sent by the upload. Its inode may not have
// been changed since the first part was read, in an earlier run: nothing else
// shows a writer who sets the modification time back, and the parts would be of
// two states. What merely has another mode or name is sent anew.
func (d *delivery) fits(up *journal.Upload) bool {
	was := source.Identity{Size: up.Size, ModTime: up.ModTime, Device: up.Device, Inode: up.Inode, ChangedAt: up.ChangedAt}
	return up.Bucket == d.dest.Bucket && up.Key == d.dest.Key && up.Checksum == string(d.up.checksum) &&
		was.Untouched(d.file.Identity()) && up.PartSize > 0 && up.PartSize < up.Size && partsOf(up.Size, up.PartSize) <= maxParts
}

// recall takes over an upload as the journal has it.
func (d *delivery) recall(up *journal.Upload) error {
	parts, err := d.up.journal.Parts(up)
	if err != nil {
		return unreadable(err)
	}
	d.upload, d.partSize = up, up.PartSize
	d.expect(partsOf(up.Size, up.PartSize))
	for i := range parts {
		if p := &parts[i]; p.Number >= 1 && int(p.Number) <= len(d.parts) && p.Size == d.sizeOfPart(int(p.Number)) {
			d.parts[p.Number-1] = sentPartOf(p)
		}
	}
	return nil
}

// forget prepares for a new upload, or for none: the part size is 0 then.
func (d *delivery) forget() {
	d.upload, d.partSize = nil, d.cut()
	if d.partSize == 0 {
		d.expect(0)
	} else {
		d.expect(partsOf(d.file.Size(), d.partSize))
	}
}

// shown reports whether what the store said of an upload shows that it is ours, and
// not another's who has the same id at another store.
func (d *delivery) shown(said listing) bool {
	parts, _ := d.delivered()
	return said == listed && parts > 0
}

// sizeOfPart is how many bytes the part of that number has.
func (d *delivery) sizeOfPart(number int) int64 {
	return min(d.partSize, d.file.Size()-int64(number-1)*d.partSize)
}

// delivered returns how many parts the store has, and their bytes.
func (d *delivery) delivered() (parts int, bytes int64) {
	for i := range d.parts {
		if d.parts[i].size > 0 {
			parts++
			bytes += d.parts[i].size
		}
	}
	return parts, bytes
}

// mostPages is how many pages a list may have: no store needs as many, and one
// that is not sound might add another for ever.
const mostPages = 1000

// askingParts is the operation that asks for the parts of an upload.
const askingParts = "ListParts"

// listParts asks the store which parts it has, and takes those for delivered
// that were recorded alike. An error says that the store gave no answer.
func (d *delivery) listParts(ctx context.Context) (listing, error) {
	has := make([]bool, len(d.parts))
	in := &s3.ListPartsInput{Bucket: &d.dest.Bucket, Key: &d.dest.Key, UploadId: &d.upload.ID}
	for pages, after := 1, 0; ; pages++ {
		if pages > 1 && (ctx.Err() != nil || d.up.leaves()) {
			return notListed, cmp.Or(context.Cause(ctx), errLeaving)
		}
		var page *s3.ListPartsOutput
		err := d.request(ctx, askingParts, single, first, func(ctx context.Context, _ *commitment) (err error) {
			page, err = d.up.client.ListParts(ctx, in)
			return err
		})
		switch answer := answerOf(err); {
		case err == nil && aws.ToString(page.UploadId) != d.upload.ID:
			return d.untold("it is about another upload"), nil
		case err == nil:
		case gone(err) && answer.Code != "NoSuchBucket":
			return notThere, nil
		case answer.Status == http.StatusNotFound && answer.Code != "NoSuchBucket": // the SDK makes a code of the status
			return notListed, fmt.Errorf("%w: %w", errNoStore, err)
		case answer.Status != 0 && (denied(err) || !transient(err)) && answer.Code != "NoSuchBucket":
			return d.untold(answerText(answer)), nil
		default:
			return notListed, err
		}
		for _, p := range page.Parts {
			if n := int(aws.ToInt32(p.PartNumber)); n >= 1 && n <= len(has) {
				ours := &d.parts[n-1]
				has[n-1] = ours.size > 0 && ours.size == aws.ToInt64(p.Size) && strings.EqualFold(ours.etag, bareETag(aws.ToString(p.ETag)))
			}
		}
		next, err := strconv.Atoi(aws.ToString(page.NextPartNumberMarker))
		if !aws.ToBool(page.IsTruncated) || err != nil || next <= after {
			break
		}
		if pages == mostPages {
			return d.untold("it goes on and on"), nil
		}
		after, in.PartNumberMarker = next, page.NextPartNumberMarker
	}
	for i := range has {
		if !has[i] {
			d.parts[i] = sentPart{}
		}
	}
	return listed, nil
}

// untold warns, once, that the parts of uploads are not listed.
func (d *delivery) untold(answer string) listing {
	d.up.unlisted.Do(func() {
		d.up.log.Warn("the store does not list the parts of an upload, which then goes on by the record alone: allow s3:ListMultipartUploadParts",
			"bucket", d.dest.Bucket, "answer", answer)
	})
	return notAllowed
}

// lookForCompleted reports whether the store has the object that the upload was
// to become. If it refuses to say, that is a no.
func (d *delivery) lookForCompleted(ctx context.Context) (made bool, err error) {
	parts := d.parts
	if n, _ := d.delivered(); n < len(parts) {
		parts = nil // the file tells
	}
	s, err := d.lookFirst(ctx, parts)
	switch {
	case err == nil && d.madeByUs(s, d.uploadSince()):
		d.got = s.got
		d.got.parts = len(d.parts)
		return true, nil
	case err != nil && (transient(err) || ctx.Err() != nil):
		return false, err
	}
	return false, nil
}

// doubt is what is known of an upload that the store was asked to complete, without
// a clear end.
type doubt struct {
	begun time.Time // when the upload was; zero: there is none
	times int       // that it was completed so, in this process
	until time.Time // it is let be
}

// errAtIt says that an upload is let be.
var errAtIt = errors.New("the store may still be joining the parts")

// doubts notes that the completion of the upload ended unclearly.
func (d *delivery) doubts(open *unclearError) {
	answered := answerOf(open).Status != 0 || errors.Is(open, errNoAnswer)
	d.doubtOf(d.upload).times++
	open.wait = d.up.retry.settling(d.doubt.times, answered)
	d.doubt.until = time.Now().Add(open.wait)
}

// doubtOf returns the doubt about an upload. One of an earlier process has the time
// of a completion that was not answered, whatever the clock says.
func (d *delivery) doubtOf(up *journal.Upload) *doubt {
	if !d.doubt.begun.Equal(up.BegunAt) {
		wait := d.up.retry.settling(1, false)
		d.doubt = doubt{begun: up.BegunAt, until: time.Now().Add(min(wait, wait-time.Since(up.CompletedAt)))}
	}
	return &d.doubt
}

// logResumed tells that a file goes on, and counts what need not be sent again.
func (d *delivery) logResumed() {
	n, bytes := d.delivered()
	d.sent.resume(bytes)
	d.up.metrics.resumed.Add(float64(bytes))
	d.up.log.LogAttrs(context.Background(), slog.LevelInfo, "upload resumed", append(d.about(), slog.String("upload_id", d.upload.ID),
		slog.Int("parts_delivered", n), slog.Int("parts", len(d.parts)))...)
}

// newUpload is the record of an upload that is to be begun.
func (d *delivery) newUpload() *journal.Upload {
	is := d.file.Identity()
	return &journal.Upload{
		Push: d.id, BegunAt: d.nextBegunAt(), Store: d.up.name, Bucket: d.dest.Bucket, Key: d.dest.Key,
		Checksum: string(d.up.checksum), PartSize: d.partSize,
		Size: is.Size, ModTime: is.ModTime, Device: is.Device, Inode: is.Inode, ChangedAt: is.ChangedAt,
	}
}

// nextBegunAt is now, and later than any upload of the push was begun, and than
// the push was put back, whatever the clock says: by that the newest is known to
// be the push's own.
func (d *delivery) nextBegunAt() time.Time {
	now := time.Now().UTC().Round(0)
	for _, before := range []time.Time{d.begunAt, d.retriedAt} {
		if !now.After(before) {
			now = before.Add(time.Nanosecond)
		}
	}
	d.begunAt = now
	return now
}
