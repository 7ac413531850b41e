package status

import (
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

var noon = time.Date(2026, 11, 26, 12, 8, 10, 0, time.UTC)

// with returns an overview with troubles that began 5 minutes before noon.
func with(o push.Overview, kinds ...push.TroubleKind) push.Overview {
	o.Store = "https://s3.example.org"
	for _, kind := range kinds {
		t := push.Trouble{Kind: kind, Since: noon.Add(-5 * time.Minute), Detail: "something is " + string(kind)}
		if kind == push.TroubleBucket {
			t.Detail = `pushes to the bucket "raw" fail, and it is tried once a second: NoSuchBucket`
			t.Bucket = "raw"
		}
		o.Troubles = append(o.Troubles, t)
	}
	return o
}

func queue(queued int, oldest time.Duration, running int, since time.Duration, retrying int) push.Overview {
	o := push.Overview{Queued: push.Line{Pushes: queued, Oldest: oldest}, Running: push.Line{Pushes: running, Oldest: since}, Retrying: retrying, AckedBytes: 1}
	if queued > retrying {
		o.InTurn = oldest
	}
	return o
}

// unanswered returns an overview with a request that came back without an answer so long
// before noon, and one that the store took, unless that is 0.
func unanswered(o push.Overview, left, taken time.Duration) push.Overview {
	o.LastUnanswered = noon.Add(-left)
	if taken > 0 {
		o.LastTaken = noon.Add(-taken)
	}
	return o
}

func TestJudge(t *testing.T) {
	const s = time.Second
	idle, waiting := push.Overview{}, queue(40, 2*s, 5, s, 0)
	limited := func(o push.Overview, limit int) push.Overview { o.QueueLimit = limit; return o }
	refused := func(pushes int64) []failureGroup {
		return []failureGroup{{Bucket: "raw", Pushes: pushes, Summary: "the store refused", Advice: "Mend it."}}
	}
	for name, tc := range map[string]struct {
		facts
		level           level
		summary, advice string // of the advice a part
	}{
		"just started":        {facts{}, well, "All is well: the daemon is ready, and nothing has been pushed since it was started.", ""},
		"idle":                {facts{ever: true}, well, "All is well: nothing waits, and nothing was pushed in the last 15 minutes.", ""},
		"idle after a push":   {facts{ever: true, last: counts{Done: 1}}, well, "All is well: nothing waits, and the one push of the last 15 minutes was delivered.", ""},
		"idle after pushes":   {facts{ever: true, last: counts{Done: 100, Cancelled: 1}}, well, "All is well: nothing waits, and all 100 pushes of the last 15 minutes were delivered.", ""},
		"busy":                {facts{overview: queue(0, 0, 1, s, 0)}, well, "All is well: 1 push is under way, and none waits.", ""},
		"busy, and more":      {facts{overview: waiting}, well, "All is well: 5 pushes are under way, and 40 wait, the oldest for 2 s.", ""},
		"nothing has begun":   {facts{overview: queue(1, 1200*time.Millisecond, 0, 0, 0)}, well, "All is well: 1 push waits, the oldest for 1.2 s.", ""},
		"as late as may be":   {facts{overview: queue(2, 7*s, 3, 7*s, 0)}, well, "All is well: 3 pushes are under way, and 2 wait, the oldest for 7 s.", ""},
		"quiet for a moment":  {facts{overview: queue(0, 0, 2, 5*s, 0), quiet: 25 * s}, well, "All is well: 2 pushes are under way, and none waits.", ""},
		"after a pause":       {facts{overview: queue(1, s, 1, 2*s, 0), quiet: time.Hour}, well, "All is well: 1 push is under way, and 1 waits, the oldest for 1 s.", ""},
		"quiet, and idle":     {facts{quiet: time.Hour}, well, "All is well: the daemon is ready, and nothing has been pushed since it was started.", ""},
		"no deadline":         {facts{deadline: -1, overview: queue(9, time.Hour, 9, time.Hour, 0)}, well, "All is well: 9 pushes are under way, and 9 wait, the oldest for 60 min.", ""},
		"falls behind":        {facts{overview: queue(40, 12*s, 25, 3*s, 0), rate: 118.4e6}, attention, "The daemon falls behind: 40 pushes wait, the oldest for 12 s, where 7 s are wanted; 118 MB/s go out.", "in turn"},
		"one behind":          {facts{overview: queue(1, 12*s, 0, 0, 0)}, attention, "The daemon falls behind: 1 push waits, the oldest for 12 s, where 7 s are wanted; 0 B/s go out.", "Next to nothing goes out"},
		"a long one":          {facts{overview: queue(3, 2*s, 1, 50*s, 0), rate: 999.7e3}, attention, "A push that is under way will be late: it was accepted 50 s ago, where 7 s are wanted; 1 MB/s go out.", "large"},
		"nothing goes out":    {facts{overview: queue(3, 2*s, 1, 50*s, 0), quiet: 45 * s}, trouble, "The store has taken nothing for 45 s: 1 push is under way, and 3 wait, the oldest for 50 s.", "does not answer"},
		"nothing, one":        {facts{overview: queue(0, 0, 2, 50*s, 0), quiet: 14 * time.Minute}, trouble, "The store has taken nothing for 50 s: 2 pushes are under way, the oldest for 50 s.", "does not answer"},
		"sent again":          {facts{overview: unanswered(queue(3, 75*s, 2, 80*s, 3), 10*s, 200*s), rate: 40e3}, trouble, "The store has taken nothing for 1 min: 2 pushes are under way, and 3 wait, the oldest for 1 min.", "without an answer"},
		"between attempts":    {facts{overview: unanswered(with(queue(3, 75*s, 0, 0, 3), push.TroubleBucket), 10*s, 40*s), rate: 40e3}, trouble, "The store has taken nothing for 40 s: 3 pushes wait, the oldest for 1 min.", "without an answer"},
		"it was taken since":  {facts{overview: unanswered(queue(0, 0, 2, 80*s, 0), 10*s, 9*s), rate: 40e3}, attention, "A push that is under way will be late: it was accepted 1 min ago, where 7 s are wanted; 40 kB/s go out.", "large"},
		"others were left":    {facts{overview: unanswered(queue(0, 0, 2, 40*s, 0), 41*s, 99*s), rate: 1e6}, attention, "A push that is under way will be late: it was accepted 40 s ago, where 7 s are wanted; 1 MB/s go out.", "large"},
		"a slow answer":       {facts{overview: unanswered(queue(0, 0, 2, 80*s, 0), 10*s, 29*s), rate: 40e3}, attention, "A push that is under way will be late: it was accepted 1 min ago, where 7 s are wanted; 40 kB/s go out.", "large"},
		"left, and away":      {facts{overview: unanswered(with(queue(0, 0, 2, 80*s, 0), push.TroubleStore), 10*s, 99*s)}, trouble, "The store cannot be reached since 12:03:10 UTC (5 min): 2 pushes wait and are sent once it answers.", "Nothing is lost"},
		"quiet, a bucket":     {facts{overview: with(queue(0, 0, 1, 80*s, 0), push.TroubleBucket), quiet: 80 * s}, attention, `Attempts at the bucket "raw" fail since 12:03:10 UTC (5 min): its pushes wait, and it is tried once a second. Others go on.`, "Nothing is lost"},
		"never taken":         {facts{overview: unanswered(queue(0, 0, 1, time.Hour, 0), 10*s, 0)}, trouble, "The store has taken nothing for 5 min: 1 push is under way, the oldest for 60 min.", "without an answer"},
		"it is not told":      {facts{overview: push.Overview{Running: push.Line{Pushes: 1, Oldest: 50 * s}}, quiet: 45 * s}, attention, "A push that is under way will be late: it was accepted 50 s ago, where 7 s are wanted; 0 B/s go out.", "large"},
		"late ones":           {facts{last: counts{Done: 100, Late: 3}}, attention, "3 of 100 pushes delivered in the last 15 minutes took longer than 7 s.", "timing"},
		"failures":            {facts{last: counts{Done: 100, Failed: 2}, failures: refused(2)}, attention, `2 pushes of the last 15 minutes failed, to the bucket "raw": the store refused.`, "Mend it."},
		"several failures":    {facts{last: counts{Done: 100, Failed: 3}, failures: refused(2)}, attention, `3 pushes of the last 15 minutes failed, 2 of them to the bucket "raw": the store refused.`, "retry them"},
		"one failure":         {facts{last: counts{Failed: 1}, failures: refused(1)}, attention, `1 push of the last 15 minutes failed, to the bucket "raw": the store refused.`, "Mend it."},
		"nothing else":        {facts{last: counts{Failed: 3}, failures: refused(3)}, trouble, `Nothing was delivered in the last 15 minutes: 3 pushes failed, to the bucket "raw": the store refused.`, "Mend it."},
		"room":                {facts{overview: limited(queue(70, s, 9, s, 0), 100)}, well, "All is well: 9 pushes are under way, and 70 wait, the oldest for 1 s.", ""},
		"little room":         {facts{overview: limited(queue(70, s, 10, s, 0), 100)}, attention, "The queue is almost full: 80 of the 100 pushes that may wait (S3DAEMON_QUEUE_LIMIT) do.", "refused (429)"},
		"no room":             {facts{overview: limited(queue(90, s, 10, s, 0), 100)}, trouble, "The queue is full: 100 of the 100 pushes that may wait (S3DAEMON_QUEUE_LIMIT) do, and further ones are refused (429).", "pushed again later"},
		"no room, and why":    {facts{overview: limited(with(queue(90, time.Minute, 10, s, 0), push.TroubleStore), 100)}, trouble, "The store cannot be reached since 12:03:10 UTC (5 min): 100 pushes wait and are sent once it answers. Besides: the queue is full, and pushes are refused.", "Nothing is lost"},
		"refused":             {facts{last: counts{Done: 353, Refused: 2947}, refusedFor: push.JournalUnavailable}, attention, "2947 pushes were refused in the last 15 minutes, the last since the journal could not be written: their callers were told so.", "pushed again"},
		"one refused":         {facts{last: counts{Refused: 1}, refusedFor: push.QueueFull}, attention, "1 push was refused in the last 15 minutes, since the queue was full: its caller was told so.", "pushed again"},
		"refused, and now":    {facts{overview: with(idle, push.TroubleJournal), last: counts{Failed: 1, Refused: 9}, refusedFor: push.JournalUnavailable}, trouble, "The journal cannot be written since 12:03:10 UTC (5 min): pushes are refused until it can. Besides: 9 pushes were refused; 1 push failed.", "disk"},
		"another attempt":     {facts{overview: queue(1, time.Hour, 0, 0, 1)}, attention, "1 push has failed an attempt and waits for the next.", "by themselves"},
		"other attempts":      {facts{overview: queue(9, 9*s, 0, 0, 9), quiet: time.Hour}, attention, "9 pushes have failed an attempt and wait for the next.", "by themselves"},
		"beside an attempt":   {facts{overview: push.Overview{Queued: push.Line{Pushes: 3, Oldest: time.Hour}, InTurn: s, Retrying: 1, AckedBytes: 1}, quiet: time.Hour}, attention, "1 push has failed an attempt and waits for the next.", "by themselves"},
		"store away":          {facts{overview: with(queue(40, time.Minute, 5, time.Minute, 5), push.TroubleStore), quiet: time.Minute}, trouble, "The store cannot be reached since 12:03:10 UTC (5 min): 45 pushes wait and are sent once it answers.", "See whether https://s3.example.org answers from this host."},
		"store away, one":     {facts{overview: with(queue(1, time.Minute, 0, 0, 0), push.TroubleStore)}, trouble, "The store cannot be reached since 12:03:10 UTC (5 min): 1 push waits and is sent once it answers.", "Nothing is lost"},
		"store away, idle":    {facts{overview: with(idle, push.TroubleStore)}, trouble, "The store cannot be reached since 12:03:10 UTC (5 min): what is pushed meanwhile is kept, and sent once it answers.", "Nothing is lost"},
		"credentials":         {facts{overview: with(waiting, push.TroubleCredentials)}, trouble, "The store cannot be asked for anything since 12:03:10 UTC (5 min), for want of good credentials: 45 pushes wait.", "Renew"},
		"journal":             {facts{overview: with(idle, push.TroubleJournal)}, trouble, "The journal cannot be written since 12:03:10 UTC (5 min): pushes are refused until it can.", "disk"},
		"bucket":              {facts{overview: with(queue(2, time.Minute, 0, 0, 2), push.TroubleBucket)}, attention, `Attempts at the bucket "raw" fail since 12:03:10 UTC (5 min): its pushes wait, and it is tried once a second. Others go on.`, "Nothing is lost. What waits goes by itself"},
		"buckets":             {facts{overview: with(idle, push.TroubleBucket, push.TroubleBucket, push.TroubleBucket)}, attention, `Attempts at 3 buckets fail, at "raw" since 12:03:10 UTC (5 min): their pushes wait, and each bucket is tried once a second. Others go on.`, "what the store says"},
		"journal moved aside": {facts{overview: with(idle, push.TroubleJournalMovedAway)}, attention, "The journal could not be read when the daemon was started: pushes that it had are not known.", "Push again"},
		"aside, and behind":   {facts{overview: with(queue(40, 12*s, 25, 3*s, 0), push.TroubleJournalMovedAway)}, attention, "The journal could not be read when the daemon was started: pushes that it had are not known. Besides: pushes wait too long.", "Push again"},
		"stopping":            {facts{overview: with(waiting, push.TroubleShuttingDown)}, attention, "The daemon is stopping: 5 pushes are under way, and 40 wait.", "when the daemon is started again"},
		"what is not known":   {facts{overview: with(idle, "quantum")}, attention, "Something is quantum since 12:03:10 UTC (5 min).", ""},
		"several":             {facts{overview: with(waiting, push.TroubleJournalMovedAway, push.TroubleStore), last: counts{Done: 9, Failed: 2, Late: 3}, failures: refused(2)}, trouble, "The store cannot be reached since 12:03:10 UTC (5 min): 45 pushes wait and are sent once it answers. Besides: a journal was moved aside; 2 pushes failed, to the bucket \"raw\": the store refused; 3 pushes came late.", "See whether"},
		"failures, bucket":    {facts{overview: with(queue(2, time.Minute, 0, 0, 2), push.TroubleBucket), last: counts{Done: 9, Failed: 2}, failures: refused(2)}, attention, `2 pushes of the last 15 minutes failed, to the bucket "raw": the store refused. Besides: attempts at the bucket "raw" fail, and its pushes wait.`, "Mend it."},
		"failures, behind":    {facts{overview: queue(40, 12*s, 25, 3*s, 0), rate: 1e6, last: counts{Done: 9, Failed: 1, Late: 2}, failures: refused(1)}, attention, `1 push of the last 15 minutes failed, to the bucket "raw": the store refused. Besides: pushes wait too long; 2 pushes came late.`, "Mend it."},
		"failures, no room":   {facts{overview: limited(queue(90, s, 10, s, 0), 100), last: counts{Done: 9, Failed: 1}, failures: refused(1)}, trouble, `The queue is full: 100 of the 100 pushes that may wait (S3DAEMON_QUEUE_LIMIT) do, and further ones are refused (429). Besides: 1 push failed, to the bucket "raw": the store refused.`, "What waits is not lost"},
		"failures, stopping":  {facts{overview: with(waiting, push.TroubleShuttingDown), last: counts{Done: 9, Failed: 1}, failures: refused(1)}, attention, `The daemon is stopping: 5 pushes are under way, and 40 wait. Besides: 1 push failed, to the bucket "raw": the store refused.`, "what has failed waits for somebody to retry it"},
		"several troubles":    {facts{overview: with(waiting, push.TroubleJournal, push.TroubleStore, push.TroubleBucket, push.TroubleBucket)}, trouble, "The journal cannot be written since 12:03:10 UTC (5 min): pushes are refused until it can. Besides: the store cannot be reached; attempts at 2 buckets fail, and their pushes wait.", "disk"},
		"stopping, and worse": {facts{overview: with(waiting, push.TroubleShuttingDown, push.TroubleStore)}, trouble, "The daemon is stopping: 5 pushes are under way, and 40 wait. Besides: the store cannot be reached.", "started again"},
		"behind, and retries": {facts{overview: queue(40, 12*s, 0, 0, 2)}, attention, "The daemon falls behind: 38 pushes wait, the oldest for 12 s, where 7 s are wanted; 0 B/s go out. Besides: 2 pushes wait for another attempt.", "Next to nothing goes out"},
	} {
		t.Run(name, func(t *testing.T) {
			f := tc.facts
			f.now, f.started = noon, noon.Add(-5*time.Minute)
			if f.deadline == 0 {
				f.deadline = 7 * s
			}
			v := judge(f)
			if v.level != tc.level || v.summary != tc.summary {
				t.Errorf("%v: %s\nwant %v: %s", v.level, v.summary, tc.level, tc.summary)
			}
			if !strings.Contains(v.advice, tc.advice) || v.level == well && v.advice != "" {
				t.Errorf("the advice is %q, want one with %q", v.advice, tc.advice)
			}
			if f.last.Failed+f.last.Refused > 0 && strings.Contains(v.advice, "Nothing is lost") {
				t.Errorf("pushes have failed or were refused, and the advice is %q", v.advice)
			}
			if strings.HasPrefix(v.summary, "All is well") != (v.level == well) {
				t.Errorf("%v: %s", v.level, v.summary)
			}
		})
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 40 * time.Millisecond: "0 s", 60 * time.Millisecond: "0.1 s", 1200 * time.Millisecond: "1.2 s", 7 * time.Second: "7 s", 59 * time.Second: "59 s",
		time.Minute: "1 min", 100 * time.Second: "2 min", 90 * time.Minute: "90 min", 3 * time.Hour: "3 h", 72 * time.Hour: "3 days",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for r, want := range map[float64]string{0: "0 B/s", 12.3: "12.3 B/s", 999.4: "999 B/s", 999.6: "1 kB/s", 1.25e6: "1.25 MB/s", 125e6: "125 MB/s", 3.1e9: "3.1 GB/s"} {
		if got := rate(r); got != want {
			t.Errorf("%v: %q, want %q", r, got, want)
		}
	}
	f := facts{now: noon}
	for at, want := range map[time.Time]string{
		{}: "", noon.Add(-time.Second): " since 12:08:09 UTC", noon.Add(-time.Minute): " since 12:07:10 UTC (1 min)", noon.Add(-26 * time.Hour): " since 2026-11-25 10:08 UTC (26 h)", noon.Add(time.Second): " since 12:08:11 UTC",
	} {
		if got := f.since(at); got != want {
			t.Errorf("%v: %q, want %q", at, got, want)
		}
	}
	for text, want := range map[string]string{"a b.": "A b", "": "", "été": "Été", "A": "A"} {
		if got := sentence(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
