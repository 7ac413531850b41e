package status

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

const (
	// mostCauses is how many causes are told apart. What a further one takes the
	// place of is the rarest.
	mostCauses = 64
	// toldCauses is how many of these are told.
	toldCauses = 5
)

// cause is what pushes have in common that fail for one reason, as far as anybody
// can tell who does not know it.
type cause struct {
	code   push.Code
	bucket string
}

// failures has the pushes that failed in the last 15 minutes, by their causes. It has
// a bounded size whatever happens.
type failures map[cause]*sameFailures

// sameFailures are those of one cause.
type sameFailures struct {
	cause
	ring   [steps + 1]uint32 // as that of the tally
	pushes int64             // the sum of these
	newest failedPush
}

// failedPush is one of them, as events have it.
type failedPush struct {
	ID         string    `json:"id"`
	File       string    `json:"file"`
	FinishedAt time.Time `json:"finished_at"`
	Detail     string    `json:"detail"`
}

// add notes a push that failed in a step, by its place in the ring.
func (f failures) add(place int, r push.Receipt) {
	problem := cmp.Or(r.Problem, &push.Problem{})
	which := cause{problem.Code, r.Bucket}
	same := f[which]
	if same == nil {
		f.makeRoom()
		same = &sameFailures{cause: which}
		f[which] = same
	}
	same.ring[place]++
	same.pushes++
	same.newest = failedPush{r.ID, r.File, r.FinishedAt, problem.Detail}
}

// makeRoom has one cause more fit in.
func (f failures) makeRoom() {
	if len(f) >= mostCauses {
		delete(f, slices.MaxFunc(slices.Collect(maps.Values(f)), mostFirst).cause)
	}
}

// forget takes away what failed in the step that had this place.
func (f failures) forget(place int) {
	for which, same := range f {
		same.pushes -= int64(same.ring[place])
		same.ring[place] = 0
		if same.pushes == 0 {
			delete(f, which)
		}
	}
}

// mostFirst orders causes by how many pushes failed of each, and those of as many by
// when the last one did, the newest first.
func mostFirst(a, b *sameFailures) int {
	return cmp.Or(cmp.Compare(b.pushes, a.pushes), b.newest.FinishedAt.Compare(a.newest.FinishedAt), cmp.Compare(b.newest.ID, a.newest.ID))
}

// told returns the commonest causes, with their words.
func (f failures) told() []failureGroup {
	all := slices.SortedFunc(maps.Values(f), mostFirst)
	groups := make([]failureGroup, 0, toldCauses)
	for _, same := range all[:min(len(all), toldCauses)] {
		w := wordsOf(same.code)
		groups = append(groups, failureGroup{same.code, same.bucket, same.pushes, w.summary, w.advice, same.newest})
	}
	return groups
}

// words says why pushes fail with a code, and what to do.
type words struct{ summary, advice string }

// wordsOf returns the words for a code. For one that no push is known to fail with they
// say little.
func wordsOf(code push.Code) words {
	if w, known := causes[code]; known {
		return w
	}
	return words{"for a reason of its own", "See what the push says of it."}
}

// causes has words for each code that a push which was accepted can fail with. What
// can be said of one push alone is in the detail of its problem.
var causes = map[push.Code]words{
	push.FileNotFound:          {"the file is gone", "Whatever removes files must wait until they are delivered. Put the file back, then retry."},
	push.FileUnreadable:        {"the file cannot be read", "Let the daemon's user read it, and see to its disk, then retry."},
	push.FileNotRegular:        {"the name is no file's any more", "Something else has taken the file's name: push the file under the one that it has now."},
	push.FileTooLarge:          {"the file is too large", "S3 takes no object of more than 5 TiB: push it as several files."},
	push.FileChanged:           {"the file changed", "Push a file once whoever writes it is done. If this one is whole now, retry."},
	push.FileHangs:             {"the file's disk does not answer", "See to the file system that it is on, then retry."},
	push.FileNotAllowed:        {"the file is where none may be pushed from", "Move it beneath S3DAEMON_ROOTS, or add its place there; what the daemon needs itself is never pushed."},
	push.DestinationNotAllowed: {"the destination is not allowed", "Push to what S3DAEMON_BUCKETS has, or add the destination there and retry."},
	push.StoreRefused:          {"the store refused", "See what it said: the bucket may be missing, full, or not for the daemon's credentials. Mend that, then retry."},
	push.StoreUnreachable:      {"the store gave no usable answer", "See to the store, and the network to it, then retry."},
	push.ChecksumMismatch:      {"the store got other bytes than were sent", "Retry. If that repeats, have the network's hardware and the store looked at."},
	push.NotVerified:           {"the store did not show that it has the file", "See what answers in its place, such as a cache or a proxy, and what S3DAEMON_CHECKSUM says of it."},
	push.NoCredentials:         {"there are no credentials for the store", "Give the daemon some, then retry."},
	push.Exists:                {"another object is there", "It stays as it is. Push to another key, or let the push overwrite."},
	push.ConditionUnsupported:  {"the store does not promise to replace nothing", "Let the push overwrite, or push to a store that knows If-None-Match."},
	push.Superseded:            {"a newer push took its place", "Nothing is to be done: the newer one decides what the object is."},
	push.JournalUnavailable:    {"the journal could not be written", "See whether the disk of the data directory is full, then retry."},
	push.Internal:              {"the daemon is at fault", "Its log has the cause: please report it. Then retry."},
}
