use super::*;

#[test]
fn what_is_wrong_for_two_looks_is_told_once() {
    let mut told = Told::default();
    let looks = [0, 1, 0, 2, 3, 3, 0, 0, -1, -1];
    let wrong = Some(News::Wrong);
    let right = Some(News::Right);
    let news = [None, None, None, None, wrong, None, right, None, None];
    let seen: Vec<_> = looks.iter().map(|drift| told.see(*drift)).collect();
    assert_eq!(seen[..news.len()], news);
    assert_eq!(seen[news.len()..], [Some(News::Wrong)]);
}
