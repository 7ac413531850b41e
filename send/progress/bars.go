package progress

import (
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/batch"
)

const (
	maxRows   = 16                     // bars of files at once, where the terminal has room
	nameWidth = 24                     // columns for a file's name
	textWidth = 34                     // and at least for the figures at the other end
	lazy      = 100 * time.Millisecond // between two updates of the bar for all files
	memory    = 0.2                    // weight of the newest measurement in a speed
)

// Bars draws a bar for each file that is under way, as far as there is room,
// and one for all files. A push is given a bar with the second news of it:
// one that is done at once would only make the screen flicker.
type Bars struct {
	w     io.Writer
	out   *mpb.Progress
	total *mpb.Bar
	count caption        // of files, before the total bar
	text  caption        // after it
	gone  sync.WaitGroup // has one for each bar that is being removed

	mu     sync.Mutex
	sums   sums            // guarded by mu
	sizes  []int64         // of each file, as far as known, 0 where it failed; guarded by mu
	under  map[int]*flight // accepted and not ended, by the item's index; guarded by mu
	rows   int             // bars of files that are on the screen; guarded by mu
	sent   int64           // bytes of those under way; guarded by mu
	drawn  time.Time       // when the total was updated; guarded by mu
	closed bool            // guarded by mu
}

// flight is a push that is under way.
type flight struct {
	bar   *mpb.Bar // nil while there is no row for it
	text  caption
	state string // in words; empty while it sends

	sent  int64
	at    time.Time // of sent
	speed float64   // bytes a second, smoothed
}

// caption is the text beside a bar. The bar's goroutine reads it while somebody
// with the lock may be waiting for that goroutine, so it has no lock.
type caption struct{ atomic.Pointer[string] }

func (c *caption) set(s string) { c.Store(&s) }

func (c *caption) decorate(decor.Statistics) string {
	if s := c.Load(); s != nil {
		return *s
	}
	return ""
}

// NewBars draws on the terminal w until Close. sizes has the size of each file
// as far as it is known, and is kept.
func NewBars(w io.Writer, sizes []int64) *Bars {
	b := &Bars{w: w, sizes: sizes, under: make(map[int]*flight), sums: sums{files: len(sizes), begun: time.Now()}}
	for _, n := range sizes {
		b.sums.bytes += n
	}
	b.out = mpb.New(mpb.WithOutput(w))
	b.total = b.newBar(b.count.decorate, b.text.decorate, math.MaxInt)
	b.drawTotalLocked()
	return b
}

// newBar adds a bar. It has no end that it could reach by itself: it is removed
// by an abort.
func (b *Bars) newBar(before, after decor.DecorFunc, priority int) *mpb.Bar {
	return b.out.New(0, mpb.BarStyle(), mpb.BarPriority(priority),
		mpb.PrependDecorators(decor.Any(before, decor.WC{W: nameWidth, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Any(after, decor.WC{W: textWidth, C: decor.DindentRight})))
}

// News moves the bar of the push.
func (b *Bars) News(item batch.Item, r push.Receipt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resizeLocked(item.Index, r.Size)
	f, known := b.under[item.Index]
	if !known {
		f = &flight{at: time.Now()}
		b.under[item.Index] = f
	} else if f.bar == nil && b.rows < room(b.w) {
		b.rows++
		name := shorten(Name(item.Name))
		f.bar = b.newBar(func(decor.Statistics) string { return name }, f.text.decorate, item.Index)
	}
	b.sent += r.SentBytes - f.sent
	f.update(r, time.Now())
	if time.Since(b.drawn) >= lazy {
		b.drawTotalLocked()
	}
}

// update takes over what the receipt says.
func (f *flight) update(r push.Receipt, now time.Time) {
	took := now.Sub(f.at).Seconds()
	if gone := r.SentBytes - f.sent; gone >= 0 && took > 0 { // a retry begins anew
		now := float64(gone) / took
		if f.speed == 0 {
			f.speed = now
		}
		f.speed += memory * (now - f.speed)
	}
	f.sent, f.at, f.state = r.SentBytes, now, state(r)
	if f.bar == nil {
		return
	}
	f.bar.SetTotal(r.Size, false)
	f.bar.SetCurrent(r.SentBytes)
	if f.state != "" {
		f.text.set(f.state)
	} else {
		f.text.set(fmt.Sprintf("%s / %s %s", Size(r.SentBytes), Size(r.Size), speed(f.speed)))
	}
}

// Ended removes the bar of the push.
func (b *Bars) Ended(o batch.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sums.add(o)
	if o.Err != nil {
		b.resizeLocked(o.Item.Index, 0) // its bytes are not waited for any more
	} else {
		b.resizeLocked(o.Item.Index, o.Receipt.Size)
	}
	if f, known := b.under[o.Item.Index]; known {
		b.sent -= f.sent
		delete(b.under, o.Item.Index)
		if f.bar != nil {
			b.remove(f.bar)
		}
	}
	if time.Since(b.drawn) >= lazy {
		b.drawTotalLocked()
	}
}

// remove takes a file's bar away. It is there for another frame, so its row is
// free only after that: a frame of more lines than the terminal has would not
// be drawn over by the next.
func (b *Bars) remove(bar *mpb.Bar) {
	bar.Abort(true)
	b.gone.Go(func() {
		bar.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.rows--
	})
}

// room is how many bars of files may be on the terminal at once.
func room(w io.Writer) int {
	file, isFile := w.(*os.File)
	if !isFile {
		return maxRows
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return maxRows
	}
	return min(maxRows, int(size.Row)-2) // the bar for all files, and the line that the cursor is in
}

// resizeLocked notes the size of a file.
func (b *Bars) resizeLocked(index int, size int64) {
	b.sums.bytes += size - b.sizes[index]
	b.sizes[index] = size
}

// drawTotalLocked moves the bar for all files.
func (b *Bars) drawTotalLocked() {
	b.drawn = time.Now()
	bytes, waiting := b.sums.delivered+b.sent, 0
	for _, f := range b.under {
		if f.state != "" {
			waiting++
		}
	}
	b.count.set(fmt.Sprintf("total %d/%s", b.sums.done+b.sums.failed, plural(b.sums.files, "file")))
	text := fmt.Sprintf("%s / %s %s", Size(bytes), Size(b.sums.bytes),
		speed(float64(bytes)/max(time.Since(b.sums.begun).Seconds(), 0.001)))
	if b.sums.failed > 0 {
		text += fmt.Sprintf(" %d failed", b.sums.failed)
	}
	if waiting > 0 {
		text += fmt.Sprintf(" %d waiting", waiting)
	}
	b.text.set(text)
	b.total.SetTotal(b.sums.bytes, false)
	b.total.SetCurrent(bytes)
}

// Write writes other lines above the bars.
func (b *Bars) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return b.w.Write(p)
	}
	return b.out.Write(p)
}

// Close removes the bars and writes the line of all files.
func (b *Bars) Close() {
	b.mu.Lock()
	for _, f := range b.under {
		if f.bar != nil {
			b.remove(f.bar)
		}
	}
	b.total.Abort(true)
	b.out.Wait() // what was written above the bars is on the terminal now
	b.closed = true
	b.mu.Unlock()
	b.gone.Wait()
	io.WriteString(b.w, b.sums.line())
}

// shorten cuts a name to its column from the left, since names of one batch
// differ at their ends.
func shorten(name string) string {
	const most = nameWidth - 1
	n := utf8.RuneCountInString(name)
	if n <= most {
		return name
	}
	runes := []rune(name)
	return "…" + string(runes[n-most+1:])
}
