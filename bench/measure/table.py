# SPDX-License-Identifier: LGPL-2.1-or-later
"""The result as text."""

WIDTHS = (64, 11, 9, 9, 9, 7)


def _line(*fields):
    first, *rest = fields
    return (first.ljust(WIDTHS[0]) + "".join(str(text).rjust(width) for text, width in zip(rest, WIDTHS[1:]))).rstrip()


def _number(value, form):
    return "-" if value is None else format(value, form)


def _target(row):
    if row["target"] is None:
        return ""
    return ("> " if row["above"] else ">= ") + f"{row['target']:.2f}"


def _cell(cell):
    lines = [f"  {cell['title']}"]
    for row in cell["subjects"]:
        lines.append(_line(f"    {row['name']}", _number(row["rate"], ",.0f"), _number(row["cpu_us"], ".1f"),
                           "" if row is cell["subjects"][0] else _number(row["ratio"], ".2f"), _target(row),
                           row["verdict"] or ""))
        if row["problem"]:
            lines.append(f"      ({row['problem']})")
    return lines


def _check(item):
    line = _line(f"  {item['title']}", f"{_number(item['value'], '.2f')} {item['unit']}", "", "",
                 f"< {item['limit']} {item['unit']}", item["verdict"])
    return [line] + ([f"      ({item['problem']})"] if item["problem"] else [])


def verdicts(results):
    """{"PASS": n, "FAIL": n, "SKIP": n}"""
    count = dict.fromkeys(("PASS", "FAIL", "SKIP"), 0)
    for item in results:
        for row in item.get("subjects", [item]):
            if row["verdict"]:
                count[row["verdict"]] += 1
    return count


def render(results):
    lines = [_line("", "I/Os a s", "CPU us", "ours/it", "target", "")]
    section = None
    for item in results:
        if item["section"] != section:
            section = item["section"]
            lines += ["", section]
        lines += _cell(item) if "subjects" in item else _check(item)
    count = verdicts(results)
    lines += ["", f"{count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped"]
    return "\n".join(lines)
