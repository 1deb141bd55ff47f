use super::*;
use crate::generate::FinishReason;
use crate::kernels::attention::KvPrecision;
use crate::sampling::SamplingParams;

const MESSAGES: [&str; 4] =
    ["Who lives in the castle?", "And then?", "What did the king say to her?", "Why?"];

fn fable() -> Hornbook {
    Hornbook::open("fable").unwrap()
}

fn options(max_tokens: usize, seed: u64) -> Options {
    let sampling = SamplingParams { temperature: 0.7, seed, ..SamplingParams::default() };
    Options { sampling, max_tokens: Some(max_tokens), ..Options::default() }
}

fn conversation(hornbook: &Hornbook, options: Options) -> Conversation<'_> {
    Conversation::new(hornbook, ChatTemplate::transcript().unwrap(), options).unwrap()
}

/// One with a template of its own.
fn with_template<'h>(hornbook: &'h Hornbook, template: &str) -> Conversation<'h> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.jinja");
    std::fs::write(&file, template).unwrap();
    Conversation::new(hornbook, ChatTemplate::open(&file).unwrap(), options(12, 1)).unwrap()
}

/// All of an answer: its text and its tokens.
fn whole(answer: Result<Answer>) -> String {
    answer.unwrap().map(Result::unwrap).collect()
}

fn tokens(conversation: &Conversation) -> Vec<u32> {
    conversation.last_stats().unwrap().tokens.clone()
}

/// The prompt that the last answer was given to.
fn prompt_of_last(conversation: &Conversation) -> Vec<u32> {
    let (_, asked) = conversation.messages().split_last().unwrap();
    conversation.fit_to_context(asked).unwrap().1
}

#[test]
fn a_turn_costs_only_what_is_new() {
    let hornbook = fable();
    let mut talk = conversation(&hornbook, options(24, 3));
    let mut before = 0;
    for (i, message) in MESSAGES.iter().enumerate() {
        let said = whole(talk.send(*message));
        let cost = talk.last_stats().unwrap().clone();
        assert_eq!(cost.prompt_tokens, cost.reused_tokens + cost.prefilled_tokens);
        assert_eq!(talk.session.len(), talk.read.len());
        assert_eq!(talk.context_usage(), (cost.prompt_tokens + cost.tokens.len() - 1, 512));
        assert_eq!(talk.messages().last().unwrap(), &ChatMessage::new("assistant", &*said));
        if i == 0 {
            assert_eq!(cost.reused_tokens, 0);
        } else {
            // Nothing but what was said last is read; the answer before it where it was not written as it is read.
            let new = hornbook.encode(&format!("\nUser: {message}\nAssistant:")).unwrap().len();
            assert!(cost.reused_tokens >= before, "{cost:?}");
            assert!(cost.prefilled_tokens <= new + 24, "{cost:?}");
        }
        before = cost.prompt_tokens;
    }
    // An answer of words that are read as they are written costs nothing again.
    let mut talk = with_template(&hornbook, "{% for m in messages %}{{ m.content }}{% endfor %}");
    talk.options.sampling.temperature = 0.0;
    whole(talk.send("Once upon a time"));
    let (prompt, answer) = (talk.last_stats().unwrap().prompt_tokens, tokens(&talk).len());
    whole(talk.send(" and then"));
    let cost = talk.last_stats().unwrap();
    assert_eq!((prompt, answer), (4, 12));
    assert_eq!(
        (cost.reused_tokens, cost.prefilled_tokens),
        (15, 3),
        "the answer's last token was never read"
    );
}

#[test]
fn with_fables_own_template_not_even_the_answer_is_read_again() {
    let hornbook = fable();
    let mut talk =
        Conversation::new(&hornbook, ChatTemplate::for_model(&hornbook).unwrap(), options(40, 6)).unwrap();
    for (i, message) in MESSAGES.iter().enumerate() {
        whole(talk.send(*message));
        let new = hornbook.encode(&format!("\" said the old woman.\n\n\"{message}\" asked the child.\n\n\""));
        let cost = talk.last_stats().unwrap();
        assert!(i == 0 || cost.prefilled_tokens <= new.unwrap().len() + 2, "turn {i}: {cost:?}");
    }
}

#[test]
fn an_answer_does_not_depend_on_the_way_there() {
    let hornbook = fable();
    for kv_precision in [KvPrecision::F32, KvPrecision::F16, KvPrecision::Int8] {
        let options = Options { kv_precision: Some(kv_precision), ..options(40, 5) };
        let mut talk = conversation(&hornbook, options.clone());
        for (i, message) in MESSAGES.iter().enumerate() {
            let before = talk.messages().to_vec();
            let said = whole(talk.send(*message));
            let mut fresh = conversation(&hornbook, options.clone());
            fresh.set_messages(before).unwrap();
            assert_eq!(whole(fresh.send(*message)), said);
            assert_eq!(tokens(&fresh), tokens(&talk));
            assert_eq!(fresh.last_stats().unwrap().reused_tokens, 0);
            // The same by the library's own loop, each turn with random numbers of its own.
            let stop = talk.template().stop().to_vec();
            let all = Options { stop, ..options.clone() };
            let mut plain = hornbook.generate(&prompt_of_last(&talk), &all).unwrap();
            (0..i).for_each(|_| plain.restart().unwrap());
            plain.by_ref().for_each(|token| drop(token.unwrap()));
            assert_eq!(plain.generated(), tokens(&talk), "turn {i}");
        }
    }
}

#[test]
fn the_oldest_turns_make_room() {
    let hornbook = fable();
    let mut talk = conversation(&hornbook, options(40, 2));
    talk.set_system(Some("A tale of a king.")).unwrap();
    let start = hornbook.encode("A tale of a king.\n\nUser:").unwrap();
    let mut dropped = 0;
    for i in 0..16 {
        let before = talk.messages().to_vec();
        let said = whole(talk.send(format!("{} {i} times?", MESSAGES[i % 4])));
        let cost = talk.last_stats().unwrap().clone();
        let (left_out, prompt) = talk.fit_to_context(&talk.messages()[..talk.messages().len() - 1]).unwrap();
        assert_eq!((left_out, prompt.len()), (cost.dropped_messages, cost.prompt_tokens));
        assert!(prompt.starts_with(&start) && prompt.len() + 40 <= 512);
        assert!(left_out >= dropped && left_out % 2 == 0, "whole exchanges, never fewer");
        // Not much more than a third is left out at once.
        assert!(left_out == 0 || prompt.len() > 512 - 512usize.div_ceil(3) - 3 * 65, "{}", prompt.len());
        if left_out > dropped {
            let mut fresh = conversation(&hornbook, options(40, 2));
            fresh.set_messages(before).unwrap();
            assert_eq!(whole(fresh.send(format!("{} {i} times?", MESSAGES[i % 4]))), said);
            assert_eq!(tokens(&fresh), tokens(&talk));
        }
        dropped = left_out;
    }
    assert!(dropped > 4, "{dropped}");
    assert_eq!(talk.messages().len(), 1 + 2 * 16, "what is left out is not forgotten");
    talk.reset();
    assert_eq!((talk.messages().len(), talk.system()), (1, Some("A tale of a king.")));
}

#[test]
fn a_full_context_is_seldom_read_again() {
    let hornbook = fable();
    let mut talk = conversation(&hornbook, options(24, 2));
    let (mut dropped, mut full, mut again, mut read) = (0, 0, 0, 0);
    for i in 0..40 {
        whole(talk.send(MESSAGES[i % 4]));
        let cost = talk.last_stats().unwrap();
        let new = hornbook.encode(&format!("\nUser: {}\nAssistant:", MESSAGES[i % 4])).unwrap().len();
        if cost.dropped_messages > dropped {
            again += 1;
        } else {
            assert!(i == 0 || cost.prefilled_tokens <= new + 24, "turn {i}: {cost:?}");
        }
        if cost.dropped_messages > 0 {
            full += 1;
            read += cost.prefilled_tokens;
        }
        dropped = cost.dropped_messages;
    }
    assert!(again > 1 && full > 4 * again, "{again} of {full} turns are read again");
    assert!(read < 100 * full, "{read} tokens were read in {full} turns");
}

#[test]
fn another_try_is_that_of_the_next_seed() {
    let hornbook = fable();
    let mut talk = conversation(&hornbook, options(30, 7));
    assert_eq!(
        talk.retry().map(drop).unwrap_err().to_string(),
        "nothing was said yet that could be answered again"
    );
    assert_eq!(talk.options.sampling.seed, 7);
    let first = whole(talk.send(MESSAGES[0]));
    let second = whole(talk.retry());
    let cost = talk.last_stats().unwrap();
    assert_eq!((cost.prefilled_tokens, cost.reused_tokens), (1, cost.prompt_tokens - 1));
    assert_eq!((talk.messages().len(), talk.options.sampling.seed), (2, 8));
    assert_ne!(first, second);
    let mut fresh = conversation(&hornbook, options(30, 8));
    assert_eq!(whole(fresh.send(MESSAGES[0])), second);
    // A question without an answer gets its first one.
    let asked = vec![ChatMessage::new("user", MESSAGES[0])];
    fresh.set_messages(asked).unwrap();
    assert_eq!((whole(fresh.retry()), fresh.options.sampling.seed), (second, 8));
}

#[test]
fn an_answer_that_is_stopped_stays_as_far_as_it_came() {
    let hornbook = fable();
    let mut talk = conversation(&hornbook, options(60, 4));
    let mut answer = talk.send(MESSAGES[0]).unwrap();
    let mut said = String::new();
    while said.len() < 12 {
        said += &answer.next().unwrap().unwrap();
    }
    said += &answer.finish();
    assert_eq!(talk.messages()[1], ChatMessage::new("assistant", said));
    assert_eq!(talk.last_stats().unwrap().finish_reason, None);
    whole(talk.send(MESSAGES[1]));
    assert_eq!(talk.messages().len(), 4);
    // Before it has begun, and where nothing is wanted.
    assert_eq!(talk.send("Well?").unwrap().finish(), "");
    assert_eq!(talk.messages()[5], ChatMessage::new("assistant", ""));
    talk.options.max_tokens = Some(0);
    assert_eq!(whole(talk.send("Well?")), "");
    assert_eq!(talk.last_stats().unwrap().finish_reason, Some(FinishReason::Length));
    // One that nobody waits for was never said.
    talk.options.max_tokens = Some(9);
    drop(talk.send("Who?").unwrap());
    assert_eq!(talk.messages().last(), Some(&ChatMessage::new("user", "Who?")));
    assert!(!whole(talk.retry()).is_empty());
}

#[test]
fn what_is_refused_changes_nothing() {
    let hornbook = fable();
    let mut talk = conversation(&hornbook, options(10, 1));
    whole(talk.send(MESSAGES[0]));
    let (turns, read) = (talk.messages().to_vec(), talk.read.clone());
    let error = talk.send("word ".repeat(600)).map(drop).unwrap_err().to_string();
    assert!(
        error.starts_with("the message is too long: the prompt is ") && error.contains("at most 511 in"),
        "{error}"
    );
    let error = talk.set_messages(vec![ChatMessage::new("tool", "x")]).unwrap_err().to_string();
    assert!(error.starts_with("messages[0].role: found \"tool\""), "{error}");
    talk.options.sampling.top_p = 2.0;
    assert!(talk.send("Hello").map(drop).unwrap_err().to_string().starts_with("top_p: found 2"));
    assert!(talk.retry().is_err());
    assert_eq!((talk.messages(), &talk.read), (&turns[..], &read));
    assert_eq!(talk.options.sampling.seed, 1);
    // A message that leaves less room than an answer may take, but some.
    talk.options = options(200, 1);
    whole(talk.send("word ".repeat(400)));
    assert_eq!(talk.last_stats().unwrap().dropped_messages, 2);

    let mut own = with_template(
        &hornbook,
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
         {{ m.content }}{% endfor %}",
    );
    assert_eq!(own.set_system(Some("x")).unwrap_err().to_string(), "the template: no system");
    assert_eq!((own.messages().len(), own.system()), (0, None));
    assert!(!whole(own.send("The king")).is_empty());

    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-gelu-new");
    let bare = Hornbook::open(folder).unwrap();
    let error = Conversation::new(&bare, ChatTemplate::transcript().unwrap(), options(1, 1)).map(drop);
    assert!(error.unwrap_err().to_string().contains("has no tokenizer"));
}
