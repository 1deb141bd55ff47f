use super::*;
use serde_json::Value as Json;
use std::time::{Duration, Instant};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/chat_templates");

fn render(text: &str) -> Result<String, String> {
    Jinja::compile(text)?.render(minijinja::context! { messages => [1, 2, 3], tools => () })
}

#[test]
fn published_templates_render_as_in_transformers() {
    let reference = std::fs::read_to_string(format!("{FOLDER}/rendered.json")).unwrap();
    let reference: Json = serde_json::from_str(&reference).unwrap();
    let templates = reference["rendered"].as_object().unwrap();
    assert!(templates.len() > 23);
    let mut problems = vec![];
    for (name, rendered) in templates {
        let text = std::fs::read_to_string(format!("{FOLDER}/{name}.jinja")).unwrap();
        let template = Jinja::compile(&text).unwrap();
        for (conversation, expected) in rendered.as_object().unwrap() {
            let messages = Value::from(minijinja::value::Serde(&reference["conversations"][conversation]));
            let found = template.render(minijinja::context! {
                messages,
                tools => (),
                documents => (),
                add_generation_prompt => true,
                bos_token => "<s>",
                eos_token => "</s>",
            });
            let as_expected = match expected["error"].as_str() {
                Some(error) => found == Err(error.to_string()),
                None => found.as_deref() == Ok(expected.as_str().unwrap()),
            };
            if !as_expected {
                problems.push(format!("{name}, {conversation}:\n{found:?}\nexpected\n{expected:?}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

#[test]
fn nested_syntax_is_an_error() {
    let deep = |open: &str, inner: &str, close: &str, n: usize| {
        format!("a\n{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    for (name, text) in [
        ("minus", format!("{{{{ {}1 }}}}", "-".repeat(30_000))),
        ("not", format!("{{{{ {}1 }}}}", "not ".repeat(30_000))),
        ("sum", format!("{{{{ 1{} }}}}", "+x".repeat(30_000))),
        ("filters", format!("{{{{ 1{} }}}}", "|abs".repeat(30_000))),
        ("attributes", format!("{{{{ x{} }}}}", ".a".repeat(30_000))),
        ("else", format!("{{{{ 1{} }}}}", " if x else 1".repeat(30_000))),
        ("elif", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(30_000))),
        ("parentheses", format!("{{{{ {} }}}}", deep("(", "1", ")", 400))),
        ("lists", format!("{{{{ {} }}}}", deep("[", "1", "]", 400))),
        ("statements", deep("{% if 1 %}", "", "{% endif %}", 400)),
    ] {
        let error = Jinja::compile(&text).unwrap_err();
        assert!(error.starts_with("line ") && !error.contains('\n'), "{name}: {error}");
    }
    assert_eq!(render(&format!("{{{{ {}1 }}}}", "-".repeat(900))).unwrap(), "1");
    assert_eq!(render(&format!("{{{{ 1{} }}}}", "+1".repeat(480))).unwrap(), "481");
}

/// Lists of which each contains the one before twice.
const DOUBLED: &str = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}\
                       {% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}";

#[test]
fn work_without_bound_is_an_error() {
    let twice = |body: &str| {
        format!(
            "{{% for i in range(100000) %}}{{% for j in range(100000) %}}{body}{{% endfor %}}{{% endfor %}}"
        )
    };
    let doubling = |value: &str| {
        DOUBLED.replace("[1]", "'a'").replace("[ns.x, ns.x]", value).replace("[ns.y, ns.y]", "1")
    };
    let big = "{% set s = 'abc ' * 100000 %}";
    for text in [
        twice(""),
        twice("x"),
        doubling("ns.x ~ ns.x"),
        doubling("ns.x + ns.x"),
        doubling("ns.x.replace('a', 'aa')"),
        format!("{DOUBLED}{{{{ ns.x }}}}"),
        format!("{DOUBLED}{{{{ ns.x == ns.y }}}}"),
        format!("{DOUBLED}{{{{ ns.x | tojson }}}}"),
        format!("{DOUBLED}{{{{ ns.x ~ '' }}}}"),
        DOUBLED.replace("[ns.x, ns.x]", "(ns.x, ns.x)"),
        DOUBLED.replace("[ns.x, ns.x]", "ns.x, ns.x"),
        DOUBLED.replace("[ns.x, ns.x]", "{'a': ns.x, 'b': ns.x}"),
        DOUBLED.replace("[ns.x, ns.x]", "dict(a=ns.x, b=ns.x)"),
        DOUBLED.replace("[ns.x, ns.x]", "ns.x | zip(ns.x) | list"),
        DOUBLED.replace("[ns.x, ns.x]", "(ns.x + ns.x) | batch(10) | list"),
        "{% set x = [[[1] * 1000] * 1000] * 1000 %}{{ x }}".into(),
        DOUBLED.replace("range(60)", "range(9999)").replace("[ns.x, ns.x]", "[ns.x]"),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns ~ '' }}".into(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into(),
        "{% macro f(x, n) %}{{ f([x, x], n - 1) if n else x }}{% endmacro %}{{ f([1], 60) }}".into(),
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}".into(),
        "{{ '{:999999999}'.format(1) }}".into(),
        "{{ '%999999999d' % 1 }}".into(),
        "{{ 'a'|indent(999999999, true) }}".into(),
        "{{ [1]|tojson(indent=999999999) }}".into(),
        "{{ 'a' * 1000000000 }}".into(),
        "{{ 10 ** 1000000000 }}".into(),
        "{{ range(1000000000) | list }}".into(),
        format!("{big}{{{{ ', '.join([s] * 1000) }}}}"),
        format!("{big}{{{{ [s] * 1000 }}}}"),
        format!("{big}{}", twice("{{ s.count('q') }}")),
        format!("{big}{}", twice("{{ s.find('q') }}")),
        format!("{{% set l = range(9999)|list %}}{}", twice("{{ l.count(1) }}")),
    ] {
        let started = Instant::now();
        let error = render(&text).expect_err(&text);
        assert!(!error.contains('\n') && started.elapsed() < Duration::from_secs(60), "{text}: {error}");
    }
    // Work that a template may do.
    let text = "{% for m in messages %}{{ m }},{% endfor %}";
    let long = Jinja::compile(text).unwrap().render(minijinja::context! { messages => vec![1; 5000] });
    assert_eq!(long.unwrap().len(), 10_000);
}

#[test]
fn strftime_now_formats_the_local_time() {
    let year: i32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
    assert!(year >= 2025, "{year}");
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}").unwrap().len(), 11);
    assert!(render("{{ strftime_now('%') }}").unwrap_err().starts_with("strftime_now: "));
}

#[test]
fn rewriting_keeps_lines_and_text() {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap();
    for (text, expected) in [
        ("a {{ b[0] }} {# '%' % 1 #}", "a {{ b[0] }} {# '%' % 1 #}"),
        ("{% raw %}{% generation %}[1]{% endraw %}", "{% raw %}{% generation %}[1]{% endraw %}"),
        (
            "{%- generation -%}\nx{% endgeneration %}",
            "{%- with %}{% filter __generation(__marks_generation) -%}\nx{% endfilter %}{% endwith %}",
        ),
        ("{{ 1 % 2 }}", "{{ 1 % 2 }}"),
        ("{{ '%s' % x.y[0](1)|upper ~ 'z' }}", "{{ '%s' |__printf( x.y[0](1)|upper) ~ 'z' }}"),
        ("{{ '%s' % -x }}", "{{ '%s' |__printf( -x) }}"),
        ("{% for a, b in [c] %}{% endfor %}", "{% for a, b in  __bounded(([c])) %}{% endfor %}"),
        ("{% set (a, b) = c %}", "{% set (a, b) = c %}"),
        ("{% set n.a = b %}", "{% set n.a =  __bounded((b)) %}"),
        ("{% if x is in [1] and not (y) %}", "{% if x is in  __bounded(([1])) and not  __bounded(((y))) %}"),
    ] {
        assert_eq!(rewrite::rewrite(text, &syntax).unwrap(), expected);
    }
    assert!(render("{{ '%s' % }}").is_err() && render("{{ [1 }}").is_err() && render("{{ ) }}").is_err());
}
