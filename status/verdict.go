package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// level says how much somebody is needed.
type level int

// The levels.
const (
	well      level = iota // nothing is to be done
	attention              // somebody should look, when he can
	trouble                // nothing is delivered, or accepted
)

// String returns the level as events have it.
func (l level) String() string { return [...]string{"well", "attention", "trouble"}[l] }

// verdict is how the daemon is, in words.
type verdict struct {
	level   level
	summary string // begins with "All is well" where it is
	advice  string // what to do; empty where there is nothing
}

// facts is all that a verdict is made of.
type facts struct {
	now      time.Time
	deadline time.Duration // 0: none
	overview push.Overview
	last     counts         // of the last 15 minutes
	ever     bool           // a push has ended, or was refused, since the start
	failures []failureGroup // those of them that failed, the commonest causes first
	started  time.Time
	rate     float64       // bytes that the store acknowledges in a second
	quiet    time.Duration // for so long nothing has gone out

	refusedFor push.Code // the last push that was refused
}

// finding is one thing that is not well.
type finding struct {
	level   level
	summary string
	also    string // the same in a few words, behind what is worse
	advice  string
}

// judge returns the verdict. Of several things the worst is told, and the others
// are named; of those that are as bad, what somebody has to do something about
// before what passes by itself. What follows from one that is told is none of its
// own: pushes that wait for a store that is away have not fallen behind.
func judge(f facts) verdict {
	still := f.standstill()
	found := slices.Concat(f.troubles(), still, f.ends())
	if still == nil {
		found = append(found, f.buckets()...)
	}
	found = append(found, f.room()...)
	if still == nil && !f.explained() {
		found = append(found, f.delays()...)
	}
	found = append(found, f.late()...)
	if len(found) == 0 {
		return verdict{well, f.allIsWell(), ""}
	}
	v := verdict{level: slices.MaxFunc(found, byLevel).level}
	if !f.has(push.TroubleShuttingDown) { // of a daemon that ends nothing else matters so much
		slices.SortStableFunc(found, func(a, b finding) int { return byLevel(b, a) })
	}
	v.summary, v.advice = found[0].summary, found[0].advice
	var also []string
	for _, other := range found[1:] {
		also = append(also, other.also)
	}
	if len(also) > 0 {
		v.summary += " Besides: " + strings.Join(also, "; ") + "."
	}
	return v
}

func byLevel(a, b finding) int { return cmp.Compare(a.level, b.level) }

func (f facts) has(kind push.TroubleKind) bool {
	return slices.ContainsFunc(f.overview.Troubles, func(t push.Trouble) bool { return t.Kind == kind })
}

// explained reports whether there is a reason for pushes to wait or to fail their
// attempts that is told anyway.
func (f facts) explained() bool {
	return slices.ContainsFunc(f.overview.Troubles, func(t push.Trouble) bool { return t.Kind != push.TroubleJournalMovedAway })
}

// safe says, before what is to be done, what became of the pushes.
func (f facts) safe() string {
	if f.last.Failed > 0 {
		return "What waits is not lost; what has failed waits for somebody to retry it. "
	}
	if f.last.Refused > 0 {
		return "What waits is not lost. "
	}
	return "Nothing is lost. "
}

// troubles returns what the uploader itself calls trouble, but for buckets.
func (f facts) troubles() (found []finding) {
	for _, t := range f.overview.Troubles {
		if t.Kind != push.TroubleBucket {
			found = append(found, f.trouble(t))
		}
	}
	return found
}

// buckets returns that some fail, which is one thing, however many they are.
func (f facts) buckets() []finding {
	var failing []push.Trouble
	for _, t := range f.overview.Troubles {
		if t.Kind == push.TroubleBucket {
			failing = append(failing, t)
		}
	}
	if len(failing) == 0 {
		return nil
	}
	n, name, since := len(failing), push.Quote(failing[0].Bucket), f.since(failing[0].Since)
	advice := f.safe() + "What waits goes by itself once the bucket takes it. See what the store says of it: that it is full, is not there, or is not for these credentials."
	if n > 1 {
		return []finding{{attention, fmt.Sprintf("Attempts at %d buckets fail, at %s%s: their pushes wait, and each bucket is tried once a second. Others go on.", n, name, since),
			fmt.Sprintf("attempts at %d buckets fail, and their pushes wait", n), advice}}
	}
	return []finding{{attention, fmt.Sprintf("Attempts at the bucket %s fail%s: its pushes wait, and it is tried once a second. Others go on.", name, since),
		fmt.Sprintf("attempts at the bucket %s fail, and its pushes wait", name), advice}}
}

func (f facts) trouble(t push.Trouble) finding {
	since, waiting := f.since(t.Since), f.overview.Queued.Pushes+f.overview.Running.Pushes
	switch t.Kind {
	case push.TroubleShuttingDown:
		return finding{attention, "The daemon is stopping: " + some(f.overview.Running.Pushes, "push is", "pushes are") + " under way, and " + some(f.overview.Queued.Pushes, "waits.", "wait."),
			"the daemon is stopping", f.safe() + "What is not sent by then goes on when the daemon is started again."}
	case push.TroubleStore:
		fate := "what is pushed meanwhile is kept, and sent once it answers."
		if waiting > 0 {
			fate = some(waiting, "push waits and is", "pushes wait and are") + " sent once it answers."
		}
		return finding{trouble, "The store cannot be reached" + since + ": " + fate, "the store cannot be reached",
			f.safe() + "See whether " + f.overview.Store + " answers from this host."}
	case push.TroubleCredentials:
		return finding{trouble, "The store cannot be asked for anything" + since + ", for want of good credentials: " + some(waiting, "push waits.", "pushes wait."),
			"credentials are missing or refused", f.safe() + "Renew the credentials where they come from: files and roles are asked again by themselves."}
	case push.TroubleJournal:
		return finding{trouble, "The journal cannot be written" + since + ": pushes are refused until it can.", "the journal cannot be written",
			"See whether the disk of the data directory is full. Pushes are accepted again as soon as there is room."}
	case push.TroubleJournalMovedAway:
		return finding{attention, "The journal could not be read when the daemon was started: pushes that it had are not known.", "a journal was moved aside",
			"Push again what had not arrived by then: a repetition is harmless. This is said until the daemon is started again."}
	}
	return finding{attention, sentence(t.Detail) + since + ".", t.Detail, ""}
}

// room returns what is not well about the room that is left in the queue.
func (f facts) room() []finding {
	waiting, limit := f.overview.Queued.Pushes+f.overview.Running.Pushes, f.overview.QueueLimit
	share := fmt.Sprintf("%d of the %s that may wait (S3DAEMON_QUEUE_LIMIT) do", waiting, some(limit, "push", "pushes"))
	switch {
	case limit <= 0 || waiting < limit-limit/5:
		return nil
	case waiting < limit:
		return []finding{{attention, fmt.Sprintf("The queue is almost full: %s.", share), fmt.Sprintf("the queue is almost full, with %d of %d", waiting, limit),
			f.safe() + "When it is full, further pushes are refused (429) until there is room: push less, or see what keeps these from the store."}}
	}
	return []finding{{trouble, "The queue is full: " + share + ", and further ones are refused (429).", "the queue is full, and pushes are refused",
		"What waits is not lost. What is refused has to be pushed again later: push less, or see what keeps these from the store."}}
}

// longQuiet is how long the store may take nothing that it should before that is
// trouble. It may need some seconds for an answer.
const longQuiet = 30 * time.Second

// standstill returns that the store takes nothing, where nothing that is told anyway
// has the pushes wait.
func (f facts) standstill() []finding {
	o := f.overview
	untaken := f.now.Sub(f.started)
	if !o.LastTaken.IsZero() {
		untaken = f.now.Sub(o.LastTaken)
	}
	lasts, oldest := min(untaken, f.quiet), max(o.Running.Oldest, o.InTurn)
	advice := "The store takes connections and does not answer, or the files cannot be read: look at what the oldest push waits for."
	switch {
	case f.unanswered():
		lasts, oldest = untaken, max(o.Running.Oldest, o.Queued.Oldest)
		advice = "The store takes connections, and requests come back without an answer: see to it, and to what stands before it. Each push says what its last attempt failed with."
	case o.AckedBytes <= 0, f.has(push.TroubleBucket): // the system does not tell; it is known why
		return nil
	}
	lasts = min(lasts, oldest)
	if lasts < longQuiet || slices.ContainsFunc(f.overview.Troubles, stops) {
		return nil
	}
	return []finding{{trouble, fmt.Sprintf("The store has taken nothing for %s: %s, the oldest for %s.", span(lasts), f.present(), span(oldest)), "the store takes nothing", f.safe() + advice}}
}

// stops reports whether a trouble has all pushes wait.
func stops(t push.Trouble) bool {
	return t.Kind != push.TroubleBucket && t.Kind != push.TroubleJournalMovedAway
}

// unanswered reports whether requests have come back without an answer since the store
// took one last, and since those were accepted that it should take. What goes out then
// shows nothing: it is what went out before.
func (f facts) unanswered() bool {
	o := f.overview
	return o.LastUnanswered.After(o.LastTaken) && f.now.Sub(o.LastUnanswered) <= max(o.Running.Oldest, o.Queued.Oldest)
}

// present says what is there to be delivered.
func (f facts) present() string {
	running, queued := f.overview.Running.Pushes, f.overview.Queued.Pushes
	switch {
	case queued == 0:
		return some(running, "push is", "pushes are") + " under way"
	case running == 0:
		return some(queued, "push waits", "pushes wait")
	}
	return some(running, "push is", "pushes are") + " under way, and " + some(queued, "waits", "wait")
}

// goesOut reports whether anything to speak of does, or it is not known.
func (f facts) goesOut() bool {
	return f.overview.AckedBytes <= 0 || f.rate*stepTime.Seconds() > float64(littleIn(len(f.overview.Connections)))
}

// delays returns what shows that pushes take longer than they should.
func (f facts) delays() (found []finding) {
	o := f.overview
	inTurn := o.Queued.Pushes - o.Retrying // they wait for nothing but their turn, but for those that are behind another to the same object
	switch {
	case f.deadline <= 0 || max(o.Running.Oldest, o.InTurn) <= f.deadline:
	case o.InTurn > f.deadline:
		advice := "They go in turn. If it stays so, more is pushed than the link or the store takes."
		if !f.goesOut() {
			advice = "Next to nothing goes out: look at what those that are under way wait for."
		}
		found = append(found, finding{attention, fmt.Sprintf("The daemon falls behind: %s, the oldest for %s, where %s are wanted; %s go out.", some(inTurn, "push waits", "pushes wait"), span(o.InTurn), span(f.deadline), rate(f.rate)),
			"pushes wait too long", f.safe() + advice})
	default:
		found = append(found, finding{attention, fmt.Sprintf("A push that is under way will be late: it was accepted %s ago, where %s are wanted; %s go out.", span(o.Running.Oldest), span(f.deadline), rate(f.rate)),
			"one that is under way will be late", "Look at it: it is large, or tried again, or the link or the store is slow."})
	}
	if o.Retrying > 0 {
		found = append(found, finding{attention, some(o.Retrying, "push has failed an attempt and waits", "pushes have failed an attempt and wait") + " for the next.",
			some(o.Retrying, "push waits for another attempt", "pushes wait for another attempt"), "They are tried again by themselves. Each says what its last attempt failed with."})
	}
	return found
}

// severalFailed is how many pushes have to fail, and none to be done, before that
// is trouble. One may have had a wrong name.
const severalFailed = 3

// ends returns what has ended lately and needs somebody.
func (f facts) ends() (found []finding) {
	if n := int(f.last.Refused); n > 0 {
		found = append(found, f.refusals(n))
	}
	if n := f.last; n.Failed > 0 {
		of, l := fmt.Sprintf("%s of the last 15 minutes failed", some(int(n.Failed), "push", "pushes")), attention
		if n.Done == 0 && n.Failed >= severalFailed {
			of, l = fmt.Sprintf("Nothing was delivered in the last 15 minutes: %d pushes failed", n.Failed), trouble
		}
		why, advice := f.why()
		found = append(found, finding{l, of + why + ".", some(int(n.Failed), "push failed", "pushes failed") + why, advice})
	}
	return found
}

// late returns that pushes were delivered too late.
func (f facts) late() (found []finding) {
	if n := f.last; n.Late > 0 {
		found = append(found, finding{attention, fmt.Sprintf("%d of %s in the last 15 minutes took longer than %s.", n.Late, some(int(n.Done), "push delivered", "pushes delivered"), span(f.deadline)),
			some(int(n.Late), "push came late", "pushes came late"), "Look at one: its timing says whether it waited for its turn, for the link or for the store."})
	}
	return found
}

// refusalWords says why pushes are refused that nothing is wrong with.
var refusalWords = map[push.Code]string{
	push.JournalUnavailable: "the journal could not be written",
	push.QueueFull:          "the queue was full",
}

// refusals is told beside what refuses them, and when that is over: until they have been
// pushed again they are nobody's.
func (f facts) refusals(n int) finding {
	last, told := "since", "its caller was told so"
	if n > 1 {
		last, told = "the last since", "their callers were told so"
	}
	also := some(n, "push was refused", "pushes were refused")
	return finding{attention, fmt.Sprintf("%s in the last 15 minutes, %s %s: %s.", also, last, refusalWords[f.refusedFor], told), also,
		"What was refused is not in the queue, and has to be pushed again: see whether its callers have done so."}
}

// why says why most of the pushes failed, behind how many did, and what to do.
func (f facts) why() (words, advice string) {
	if len(f.failures) == 0 {
		return "", "Each says why. Mend that, and retry them: they are not tried again by themselves."
	}
	most := f.failures[0]
	words = fmt.Sprintf(" to the bucket %s: %s", push.Quote(most.Bucket), most.Summary)
	if most.Pushes == f.last.Failed {
		return "," + words, most.Advice
	}
	return fmt.Sprintf(", %d of them", most.Pushes) + words, "Each says why. Mend that, and retry them: they are not tried again by themselves."
}

// allIsWell says what a daemon does that is well.
func (f facts) allIsWell() string {
	queued, running := f.overview.Queued, f.overview.Running
	switch {
	case running.Pushes > 0 && queued.Pushes > 0:
		return fmt.Sprintf("All is well: %s under way, and %s, the oldest for %s.", some(running.Pushes, "push is", "pushes are"), some(queued.Pushes, "waits", "wait"), span(queued.Oldest))
	case running.Pushes > 0:
		return fmt.Sprintf("All is well: %s under way, and none waits.", some(running.Pushes, "push is", "pushes are"))
	case queued.Pushes > 0:
		return fmt.Sprintf("All is well: %s, the oldest for %s.", some(queued.Pushes, "push waits", "pushes wait"), span(queued.Oldest))
	case f.last.Done == 1:
		return "All is well: nothing waits, and the one push of the last 15 minutes was delivered."
	case f.last.Done > 0:
		return fmt.Sprintf("All is well: nothing waits, and all %d pushes of the last 15 minutes were delivered.", f.last.Done)
	case f.ever:
		return "All is well: nothing waits, and nothing was pushed in the last 15 minutes."
	}
	return "All is well: the daemon is ready, and nothing has been pushed since it was started."
}
