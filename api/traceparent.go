package api

import "strings"

// parseTraceparent reads the traceparent headers of a request (W3C Trace
// Context). There is no error: one that is not valid, or is there more than
// once, is to be taken for none, whatever that does to the trace. What a later
// version of the standard has is written as the first one would, which is all
// that is known here.
func parseTraceparent(headers []string) string {
	if len(headers) != 1 {
		return ""
	}
	text := trimSpace(headers[0])
	const length = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	if len(text) < length || len(text) > length && (text[length] != '-' || strings.HasPrefix(text, "00")) {
		return ""
	}
	parts := strings.Split(text[:length], "-")
	if len(parts) != 4 || !isHex(parts[0], 2) || !isHex(parts[1], 32) || !isHex(parts[2], 16) || !isHex(parts[3], 2) ||
		parts[0] == "ff" || isZero(parts[1]) || isZero(parts[2]) {
		return ""
	}
	if parts[0] == "00" {
		return text
	}
	const sampled = "13579bdf" // the one flag that the first version has is the lowest bit
	flags := "00"
	if strings.Contains(sampled, parts[3][1:]) {
		flags = "01"
	}
	return "00-" + parts[1] + "-" + parts[2] + "-" + flags
}

// isHex reports whether s is that many hexadecimal digits, with small letters.
func isHex(s string, digits int) bool {
	return len(s) == digits && strings.Trim(s, "0123456789abcdef") == ""
}

func isZero(s string) bool { return strings.Trim(s, "0") == "" }
